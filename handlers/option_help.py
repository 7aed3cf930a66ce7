"""Help on options: name, type, default and meaning, from their declaration.

This module knows how a type is put into words; what options there are is the handlers' business.
"""

import json
from dataclasses import dataclass

import msgspec
import msgspec.inspect as types

from vscsihba.handlers.options import Options, fields_of, is_path, is_size


@dataclass(frozen=True, slots=True)
class OptionHelp:
    """One option as the help shows it.

    Attributes:
        name: Its key in the document.
        type: Its possible values, in a few words.
        required: It has no default.
        default: Its value when left out, in JSON; empty if `required`.
        description: One or more sentences for the reader.
    """

    name: str
    type: str
    required: bool
    default: str
    description: str


def describe(kind: type[Options]) -> list[OptionHelp]:
    """Return the help of every option of `kind`, in the order of their declaration."""
    return [
        OptionHelp(
            name=field.encode_name,
            type=in_words(field.type),
            required=field.required,
            default="" if field.required else json.dumps(_default(field)),
            description=_description(field.type),
        )
        for field in fields_of(kind)
    ]


def in_words(type_: types.Type) -> str:
    """Return a description of a type's values: ``size``, ``true or false``, ``one of 512, 4096``."""
    match type_:
        case _ if is_path(type_):
            words = "path"
        case _ if is_size(type_):
            words = "size"
        case types.UnionType(members):
            words = " or ".join(in_words(each) for each in members if not isinstance(each, types.NoneType))
        case types.Metadata(inner):
            words = in_words(inner)
        case types.IntType() | types.FloatType():
            words = _number(type_)
        case types.LiteralType(values):
            words = "one of " + ", ".join(map(str, values))
        case types.VarTupleType(item) | types.ListType(item):
            words = "list of " + in_words(item).removeprefix("one of ")
        case _:
            words = _SIMPLE.get(type(type_), "JSON")
    return words


_SIMPLE = {types.BoolType: "true or false", types.StrType: "text"}


def _number(type_: types.IntType | types.FloatType) -> str:
    name = "whole number" if isinstance(type_, types.IntType) else "number"
    if type_.ge is not None:
        return f"{name} from {type_.ge} " + ("on" if type_.le is None else f"to {type_.le}")
    return name if type_.gt is None else f"{name} above {type_.gt}"


def _default(field: types.Field) -> object:
    """Return the default of an option."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _description(type_: types.Type) -> str:
    """Return the text that an option was annotated with."""
    if isinstance(type_, types.Metadata):
        return str((type_.extra_json_schema or {}).get("description", ""))
    return ""
