"""Options of HBAs and LUNs in documents, and their numbers."""

from collections.abc import Mapping
from typing import cast

import msgspec

from vscsihba.errors import UsageError
from vscsihba.handlers.option_help import OptionHelp, in_words
from vscsihba.handlers.options import Options, fields_of
from vscsihba.shell.values import read_number


def number_of(text: str) -> int:
    """Return N of ``N``, ``hbaN`` or ``lunN``."""
    return read_number("number", text.removeprefix("hba").removeprefix("lun"))


def first_free(taken: list[int], last: int) -> int:
    """Return the first number that is not taken.

    Raises:
        UsageError: All up to the last one are.
    """
    for number in range(last + 1):
        if number not in taken:
            return number
    raise UsageError(f"all numbers up to {last} are taken", cure="delete one first")


def without_none(values: Mapping[str, object]) -> dict[str, object]:
    """Return an object without its keys that are None, which have their default."""
    return {name: value for name, value in values.items() if value is not None}


def keys(kind: type[msgspec.Struct], *, without: tuple[str, ...]) -> list[OptionHelp]:
    """Return the keys that a document can have for an HBA, a LUN, an export or an initiator."""
    return [
        OptionHelp(
            name=field.encode_name,
            type=in_words(field.type),
            required=False,
            default=msgspec.json.encode(field.default).decode(),
            description=_description(field.type),
        )
        for field in fields_of(cast("type[Options]", kind))
        if field.encode_name not in without
    ]


def _description(type_: msgspec.inspect.Type) -> str:
    """Return the description of a key; the one of an optional key is inside its type."""
    inner = type_.types if isinstance(type_, msgspec.inspect.UnionType) else (type_,)
    return next(
        str((each.extra_json_schema or {}).get("description", ""))
        for each in inner
        if isinstance(each, msgspec.inspect.Metadata)
    )
