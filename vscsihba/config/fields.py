"""Checks of an object in a document against a struct of the model, key by key.

Every error has the same form: it names the key and a valid value. Knows the annotations of the structs, and
no rule between two fields.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache

import msgspec
from msgspec import inspect

from vscsihba.errors import ConfigError
from vscsihba.handlers.options import did_you_mean

_LONGEST = 60
"""Longest value in a message, in characters."""


def read_fields(kind: type[msgspec.Struct], value: object, place: str) -> dict[str, object]:
    """Return the keys of an object after a check: known to `kind`, none missing, each of the right type.

    The caller checks objects and lists inside.

    Raises:
        ConfigError: A key is not valid.
    """
    keys = read_object(value, place)
    fields = _fields(kind)
    for key in keys:
        if key not in fields:
            raise ConfigError(f"{place}.{key}", "unknown key", cure=did_you_mean(key, fields))
    types = _types(kind)
    for name, field in fields.items():
        if name not in keys:
            if field.required:
                raise ConfigError(f"{place}.{name}", "the key is missing", cure=f"use {_use(types[name])}")
        elif not _is_container(types[name]):
            check(field.type, types[name], keys[name], f"{place}.{name}")
    return dict(keys)


def check(annotation: object, type_: inspect.Type, value: object, place: str) -> None:
    """Check a value against an annotation of the model.

    Raises:
        ConfigError: It has another type, or out of range.
    """
    try:
        msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        raise ConfigError(place, f"it cannot be {shown(value)}", cure=f"use {_use(type_)}") from error


def check_key(annotation: object, key: str, place: str) -> None:
    """Check the key of an object against an annotation of the model.

    Raises:
        ConfigError: The key is not valid.
    """
    check(annotation, _type(annotation), key, f"{place}.{key}")


def read_object(value: object, place: str) -> Mapping[str, object]:
    """Return `value`.

    Raises:
        ConfigError: It is not an object.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(place, f"it cannot be {shown(value)}", cure="use an object, {...}")
    return value


def read_list(value: object, place: str) -> list[object]:
    """Return `value`.

    Raises:
        ConfigError: It is not a list.
    """
    if not isinstance(value, list):
        raise ConfigError(place, f"it cannot be {shown(value)}", cure="use a list, [...]")
    return value


def check_unique(values: Sequence[object], place: str, message: str, *, cure: str) -> None:
    """Refuse two equal values.

    Args:
        values: The values of a list, in its order.
        place: Of an entry, with ``{}`` for its index.
        message: With ``{}`` for the value, if it names that.
        cure: The remedy.

    Raises:
        ConfigError: A value is there twice.
    """
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ConfigError(place.format(index), message.format(value), cure=cure)


def shown(value: object) -> str:
    """Return a value as JSON, truncated if it is long."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.name: field for field in msgspec.structs.fields(kind)}


_type = cache(inspect.type_info)


@cache
def _types(kind: type[msgspec.Struct]) -> dict[str, inspect.Type]:
    struct = inspect.type_info(kind)
    assert isinstance(struct, inspect.StructType)  # noqa: S101  # for the type checker
    return {field.name: field.type for field in struct.fields}


def _is_container(type_: inspect.Type) -> bool:
    inner = type_.type if isinstance(type_, inspect.Metadata) else type_
    return isinstance(inner, inspect.DictType | inspect.VarTupleType)


def _use(type_: inspect.Type) -> str:
    """Return the valid values of a type as a text: its annotation, or a text for its kind."""
    match type_:
        case inspect.Metadata():
            return str((type_.extra or {}).get("use") or _use(type_.type))
        case inspect.UnionType():
            return _use(type_.types[0])
        case inspect.LiteralType():
            return " or ".join(map(str, type_.values))
        case inspect.BoolType():
            return "true or false"
        case _:
            return "text"
