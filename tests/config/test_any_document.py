"""Any input for a document: it is read, or refused in one line that names a place in it."""

import copy
import json
import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.config.documents import unhurried
from tests.config.test_load import BASE, WHOLE
from vscsihba.config.dump import dump
from vscsihba.config.load import parse
from vscsihba.config.model import Document, Hba, Lun
from vscsihba.errors import ConfigError
from vscsihba.handlers.options import path_options, size_options
from vscsihba.handlers.registry import Registry

VALUE = json.loads(re.sub(r"^\s*//.*$", "", WHOLE, flags=re.MULTILINE))
KEYS = sorted(
    {*Document.__struct_fields__, *Hba.__struct_fields__, *Lun.__struct_fields__}
    | {"handler", "next", "legs", "path", "size", "create", "key_file", "boot", "Boot", ".", ""}
)
HANDLERS = ["file", "memory", "mirror", "encrypt", "readonly", "error", "split", "x.py", "none", ""]

simple = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*HANDLERS, "boot", "vault", "10GiB", "/a.img", -1, 0, 1, 255, 256, 1 << 64, 1 << 4096])
)
values = st.recursive(
    simple,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def outcome(data: bytes) -> Document | ConfigError:
    """Return the document or the error of reading; nothing else is possible."""
    try:
        document = parse(data, BASE)
    except ConfigError as error:
        refused = error
    else:
        assert parse(dump(document).encode(), Path("/elsewhere")) == document
        return document
    assert str(refused).isprintable()
    return refused


def check_place(place: str, value: Any) -> None:
    """Check that a place leads into `value`; its last key may be missing."""
    if re.fullmatch(r"line \d+, column \d+", place):
        return
    assert place.startswith("$")
    rest = place[1:]
    while rest:
        if isinstance(value, list):
            index = re.match(r"\[(\d+)\]", rest)
            assert index is not None, place
            value, rest = value[int(index[1])], rest[index.end() :]
        elif isinstance(value, dict) and rest[0] == ".":
            there = [key for key in value if rest[1:].startswith(key) and rest[1 + len(key) :][:1] in "[."]
            if not there:
                return  # the key that is missing, or one that had to be escaped
            key = max(there, key=len)
            value, rest = value[key], rest[1 + len(key) :]
        else:
            return


@unhurried
@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    outcome(data)


@unhurried
@given(st.text(alphabet='{}[]":,/\\ \n01truefalsnv'))
def test_any_text_that_looks_like_json(text: str) -> None:
    outcome(text.encode())


@unhurried
@given(values)
def test_any_json(value: object) -> None:
    outcome(json.dumps(value).encode())


@unhurried
@given(values, values)
def test_any_json_that_says_its_version(backstores: object, hbas: object) -> None:
    value = {"version": 1, "backstores": backstores, "hbas": hbas}
    found = outcome(json.dumps(value).encode())
    if isinstance(found, ConfigError):
        check_place(found.place, value)


@st.composite
def stacks(draw: st.DrawFn) -> object:
    """Return layers of existing handlers with existing options of any value."""
    registry = Registry()
    name = draw(st.sampled_from(registry.names()))
    kind = registry.get(name)
    options = [field for field in kind.Options.__struct_fields__ if draw(st.booleans())]
    layer: dict[str, object] = {"handler": name}
    for option in options:
        if option in size_options(kind.Options):
            layer[option] = draw(st.sampled_from(["1MiB", "1.5 GiB", 512, 0, -1, "x"]) | simple)
        elif option in path_options(kind.Options):
            layer[option] = draw(st.sampled_from(["a.img", "/b", "../c", ""]) | simple)
        else:
            layer[option] = draw(st.sampled_from([True, False, 1, 4096, 0.5, "none"]) | simple)
    if draw(st.booleans()):
        layer["next"] = draw(stacks() | simple)
    if name in ("mirror", "split") and draw(st.booleans()):
        layer["legs"] = draw(st.lists(stacks(), max_size=2) | simple)
    return layer


@unhurried
@given(stacks())
def test_any_stack(stack: object) -> None:
    value = {"version": 1, "backstores": {"a": stack}}
    found = outcome(json.dumps(value).encode())
    if isinstance(found, ConfigError):
        check_place(found.place, value)


@st.composite
def spoilt(draw: st.DrawFn) -> object:
    """Return a valid document with one value changed, left out or added."""
    value = copy.deepcopy(VALUE)
    here: Any = value
    while True:
        keys = sorted(here) if isinstance(here, dict) else list(range(len(here)))
        key = draw(st.sampled_from(keys)) if keys else None
        inner = here[key] if keys else None
        if not isinstance(inner, dict | list) or draw(st.integers(0, 2)) == 0:
            break
        here = inner
    if isinstance(here, list):
        here.insert(draw(st.integers(0, len(here))), draw(values))
    elif draw(st.booleans()):
        here[draw(st.sampled_from(KEYS))] = here.pop(key)
    else:
        here[key] = draw(values)
    return value


@unhurried
@given(spoilt())
def test_document_with_one_mistake(value: object) -> None:
    found = outcome(json.dumps(value).encode())
    if isinstance(found, ConfigError):
        check_place(found.place, value)


@unhurried
@given(st.integers(0, len(WHOLE) - 1), st.text(max_size=2), st.integers(0, 3))
def test_document_with_a_slip_of_the_pen(at: int, typed: str, lost: int) -> None:
    text = WHOLE[:at] + typed + WHOLE[at + lost :]
    outcome(text.encode("utf-8", "surrogatepass"))
