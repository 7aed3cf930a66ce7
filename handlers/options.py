"""Options: settings of one layer of a stack, checked before anything opens.

Each handler declares a `msgspec.Struct`; the types and descriptions of its fields are
the check, the error message and the help text at once. This module knows no handler.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Literal, TypeVar

import msgspec

from vscsihba.errors import ConfigError, UsageError
from vscsihba.units import parse_size


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of every handler's options: none."""

    @classmethod
    def cure_for_missing(cls, name: str, document: Mapping[str, object]) -> str | None:  # noqa: ARG003
        """Return the cure for a document without the required option `name`, None if none is known."""
        return None


BlockSize = Literal[512, 1024, 2048, 4096]
"""The logical blocks that a disk can have, in bytes."""

Size = Annotated[int, msgspec.Meta(ge=0, extra={"unit": "bytes"})]
"""A number of bytes, which a document may also give as text: ``"10GiB"``."""
MediumPath = Annotated[str, msgspec.Meta(extra={"path": "medium"})]
"""A file that holds (a part of) the disk: two disks that write cannot both have it."""
FilePath = Annotated[str, msgspec.Meta(extra={"path": "other"})]
"""A file that belongs to no disk alone, such as one with a key."""
SecretPath = Annotated[str, msgspec.Meta(extra={"path": "secret"})]
"""A file that nobody else may read."""
Count = Annotated[int, msgspec.Meta(ge=0)]
"""How often something happens."""
Ordinal = Annotated[int, msgspec.Meta(ge=1)]
"""Which one of several, counted from 1."""
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""How likely something is, from 0 to 1."""
Positive = Annotated[float, msgspec.Meta(gt=0)]
"""A quantity that cannot be 0."""
Seconds = Annotated[float, msgspec.Meta(ge=0)]
"""A time span."""


O = TypeVar("O", bound=Options)  # noqa: E741  # "O" as in Options


def convert(kind: type[O], document: Mapping[str, object], *, place: str, handler: str) -> O:
    """Return the options of `handler` from the keys of `document`.

    Args:
        kind: The handler's option struct.
        document: Its keys and values as they come out of JSON.
        place: Where the document stands, such as ``$.hbas[0].luns[2]``.
        handler: The handler's name, for the messages.

    Raises:
        ConfigError: A key is unknown or missing, or a value cannot be meant.
    """
    fields = fields_of(kind)
    known = [field.encode_name for field in fields]
    for key in document:
        if key not in known:
            raise ConfigError(
                f"{place}.{key}", f"handler {handler} has no option {key!r}", cure=did_you_mean(key, known)
            )
    for field in fields:
        if field.required and field.encode_name not in document:
            name = field.encode_name
            raise ConfigError(
                place,
                f"handler {handler} needs the option {name!r}",
                cure=kind.cure_for_missing(name, document),
            )
    _check_text(document, place)
    try:
        return msgspec.convert(_with_sizes(kind, document, place), kind)
    except msgspec.ValidationError as error:
        raise _refused(kind, document, place, error) from error


def _check_text(document: Mapping[str, object], place: str) -> None:
    """Refuse text that no JSON document can hold, such as a file's name that is not UTF-8.

    Raises:
        ConfigError: There is some.
    """
    for key, value in document.items():
        try:
            str(value).encode() if isinstance(value, str) else None
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"{place}.{key}",
                f"{value!a} is not valid UTF-8",
                cure="rename it, or make a symbolic link to it",
            ) from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the cure for a misspelt `word`: the nearest known one, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known are: {', '.join(known)}" if known else "it takes none"


def dump(options: Options) -> str:
    """Return options as JSON text, the same for equal options."""
    return msgspec.json.encode(options, order="sorted").decode()


def option_types(kind: type[Options]) -> dict[str, bool]:
    """Return the names of the options of `kind`, in order, and whether each of them is text."""
    return {field.encode_name: _is_text(field.type) for field in fields_of(kind)}


def path_options(kind: type[Options]) -> dict[str, bool]:
    """Return the names of those options of `kind` that are paths, and whether each is a `MediumPath`."""
    return {name: path == "medium" for name, path in _paths(kind).items()}


def secret_options(kind: type[Options]) -> frozenset[str]:
    """Return the names of those options of `kind` that are each a `SecretPath`."""
    return frozenset(name for name, path in _paths(kind).items() if path == "secret")


def _paths(kind: type[Options]) -> dict[str, object]:
    kinds = {field.encode_name: _extra(field.type).get("path") for field in fields_of(kind)}
    return {name: path for name, path in kinds.items() if path is not None}


def size_options(kind: type[Options]) -> frozenset[str]:
    """Return the names of those options of `kind` that are sizes in bytes."""
    return frozenset(field.encode_name for field in fields_of(kind) if is_size(field.type))


def default_of(kind: type[Options], name: str) -> object:
    """Return the default of the option `name` in JSON, `msgspec.NODEFAULT` if it is required."""
    field = next(field for field in fields_of(kind) if field.encode_name == name)
    return msgspec.NODEFAULT if field.required else msgspec.to_builtins(_default(field))


def _is_text(type_: msgspec.inspect.Type) -> bool:
    if isinstance(type_, msgspec.inspect.Metadata):
        return _is_text(type_.type)
    return isinstance(type_, msgspec.inspect.StrType)


@cache
def fields_of(kind: type[Options]) -> tuple[msgspec.inspect.Field, ...]:
    """Return the options of `kind` as they were declared, in order."""
    struct = msgspec.inspect.type_info(kind)
    assert isinstance(struct, msgspec.inspect.StructType)  # noqa: S101  # for the type checker
    return struct.fields


def _default(field: msgspec.inspect.Field) -> object:
    """Return the default of an option."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _with_sizes(kind: type[Options], document: Mapping[str, object], place: str) -> dict[str, object]:
    """Turn sizes that are given as text into numbers.

    Raises:
        ConfigError: The text is no size.
    """
    converted = dict(document)
    for field in fields_of(kind):
        name, value = field.encode_name, document.get(field.encode_name)
        if isinstance(value, str) and is_size(field.type):
            try:
                converted[name] = parse_size(value)
            except UsageError as error:
                raise ConfigError(f"{place}.{name}", error.message, cure=error.cure) from error
    return converted


def is_size(type_: msgspec.inspect.Type) -> bool:
    """Return whether a type is `Size`, or says that it can be."""
    if isinstance(type_, msgspec.inspect.UnionType):
        return any(map(is_size, type_.types))
    if isinstance(type_, msgspec.inspect.Metadata):
        return _extra(type_).get("unit") == "bytes" or is_size(type_.type)
    return False


def is_path(type_: msgspec.inspect.Type) -> bool:
    """Return whether a type is `MediumPath` or `FilePath`."""
    return "path" in _extra(type_)


def _extra(type_: msgspec.inspect.Type) -> dict[str, object]:
    """Return the annotations of a type that are for this package, rather than for msgspec."""
    return dict(type_.extra or {}) if isinstance(type_, msgspec.inspect.Metadata) else {}


def _refused(
    kind: type[Options], document: Mapping[str, object], place: str, error: msgspec.ValidationError
) -> ConfigError:
    """Translate msgspec's error, and its ``... - at `$.key[1]` ``, to the place in the whole document."""
    from vscsihba.handlers.option_help import in_words  # noqa: PLC0415 - which imports this module

    message, _, path = str(error).partition(" - at `$")
    key = re.match(r"\.([^.\[`]+)", path)
    field = next((each for each in fields_of(kind) if key and each.encode_name == key[1]), None)
    if field is None:  # a rule between two of them
        return ConfigError(place, message[:1].lower() + message[1:])
    words = in_words(field.type)
    article = "a " if words.startswith(("path", "size", "whole", "number", "list")) else ""
    value = json.dumps(document[field.encode_name], default=repr)
    said = f"it cannot be {value}" if value != '""' else "it cannot be empty"
    return ConfigError(f"{place}.{field.encode_name}", said, cure=f"use {article}{words}")
