"""The schema is up to date, and agrees with the reader of documents."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from hypothesis import given

from tests.config.documents import documents, unhurried
from tests.config.test_any_document import VALUE, stacks, values
from tests.config.test_load import BASE, MISTAKES, WHOLE
from vscsihba.config.dump import builtins
from vscsihba.config.load import parse, read
from vscsihba.config.model import Document
from vscsihba.config.schema import SHIPPED, schema, shipped
from vscsihba.config.text import decode
from vscsihba.errors import ConfigError, HostError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.registry import Registry

Validate = Callable[[Any], object]
validate: Validate = fastjsonschema.compile(schema())

BEYOND = (
    "another",
    "already belongs to",
    "there is no backstore",
    "not JSON",
    "twice",
    "not valid Unicode",
    "invalid characters",
    "also has this",
    "nan",
    "inf",
)
"""Errors that only the reader finds: rules between two places, and text that is no JSON."""


def agrees(value: object) -> bool:
    try:
        validate(value)
    except fastjsonschema.JsonSchemaException:
        return False
    return True


def test_the_shipped_schema_is_up_to_date() -> None:
    assert json.loads(SHIPPED.read_text()) == json.loads(json.dumps(shipped())), (
        "run: python -m vscsihba.config.schema"
    )


def test_every_handler_of_the_package_is_in_it() -> None:
    names = {f"handler-{name}" for name in Registry().names()}
    assert names <= schema()["$defs"].keys()


def test_whole_document_agrees() -> None:
    assert agrees(VALUE)
    assert agrees(builtins(parse(WHOLE.encode(), BASE)))


@unhurried
@given(documents())
def test_document_as_it_is_written_agrees(document: Document) -> None:
    assert agrees(json.loads(json.dumps(builtins(document))))


@unhurried
@given(stacks())
def test_stack_that_is_read_agrees(stack: object) -> None:
    value = {"version": 1, "backstores": {"a": stack}}
    try:
        found = read(value, BASE)
    except ConfigError:
        return
    assert agrees(value)
    assert agrees(builtins(found))


@unhurried
@given(values)
def test_json_that_agrees_is_never_refused_for_its_form(value: object) -> None:
    whole = {"version": 1, "hbas": value}
    if agrees(json.loads(json.dumps(whole))):
        try:
            read(whole, BASE)
        except ConfigError as error:
            refused = str(error)
        else:
            return
        assert any(word in refused for word in BEYOND)


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES)
def test_mistake_does_not_agree(old: str, new: str, said: str) -> None:
    if not any(word in said for word in BEYOND):
        assert not agrees(decode(WHOLE.replace(old, new, 1).encode()))


@pytest.mark.parametrize(
    ("stack", "good"),
    [
        ("/a.img", True),
        ("", False),
        ({"handler": "memory", "size": "1.5 gib"}, True),
        ({"handler": "memory", "size": "1 barrel"}, False),
        ({"handler": "memory"}, False),
        ({"handler": "readonly"}, False),
        ({"handler": "readonly", "next": {"handler": "readonly", "next": "/a"}}, True),
        ({"handler": "readonly", "next": {"handler": "readonly", "nxt": "/a"}}, False),
        ({"handler": "mirror", "path": "/m", "legs": []}, False),
        ({"handler": "mirror", "path": "/m", "legs": ["/a", {"handler": "memory", "size": 512}]}, True),
        ({"handler": "file", "path": "/a", "next": "/b"}, False),
        ({"handler": "mine.py", "anything": [1]}, True),
        ({"handler": "mine.py:One", "next": "/a"}, True),
        ({"handler": "mine"}, False),
    ],
)
def test_stack_agrees_or_not(stack: object, *, good: bool) -> None:
    assert agrees({"version": 1, "backstores": {"a": stack}}) == good


def test_handler_whose_package_is_missing_takes_any_options() -> None:
    class Lacking(Registry):
        def get(self, name: str) -> type[Handler]:
            raise HostError(f"{name} cannot be imported")

    checks = fastjsonschema.compile(schema(["far"], Lacking()))
    checks({"version": 1, "backstores": {"a": {"handler": "far", "away": 1}}})


def test_schema_is_part_of_the_package() -> None:
    assert SHIPPED.parent == Path(__file__).parents[2] / "vscsihba" / "config"
