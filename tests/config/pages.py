"""The tables of keys in docs/config.md, generated from the model's annotations.

``python -m tests.config.pages`` writes them anew; a test compares them.
"""

import json
import re
from pathlib import Path

import msgspec
from msgspec import inspect

from vscsihba.config.changes import LIVE
from vscsihba.config.export import Export, ExportLun, Initiator
from vscsihba.config.model import Document, Hba, Lun

PAGE = Path(__file__).resolve().parents[2] / "docs" / "config.md"
STRUCTS: tuple[type[msgspec.Struct], ...] = (Document, Hba, Lun, Export, Initiator, ExportLun)


def table(kind: type[msgspec.Struct]) -> str:
    """Return the table of a struct's keys, in Markdown."""
    struct = inspect.type_info(kind)
    assert isinstance(struct, inspect.StructType)
    live = kind is Lun
    lines = ["| key | default | value | meaning |", "|---|---|---|---|"]
    if live:
        lines = [lines[0] + " can change while it works |", lines[1] + "---|"]
    for field in struct.fields:
        value, meaning = words(field.type)
        works = (" yes |" if field.name in LIVE else " |") if live else ""
        lines.append(f"| `{field.name}` | {default(field)} | {value} | {meaning} |{works}")
    return "\n".join(lines) + "\n"


def default(field: inspect.Field) -> str:
    if field.required or field.name == "version":
        return "(required)"
    found = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    return "" if found is None else f"`{json.dumps(found)}`"


def words(type_: inspect.Type) -> tuple[str, str]:
    """Return the valid values of a key, and its meaning."""
    if isinstance(type_, inspect.UnionType):
        return words(type_.types[0])
    if isinstance(type_, inspect.Metadata):
        meaning = str((type_.extra_json_schema or {}).get("description", ""))
        return str((type_.extra or {}).get("use") or words(type_.type)[0]), meaning
    if isinstance(type_, inspect.LiteralType):
        if type_.values == (1,):
            return "`1`", "Version of the document's format."
        return " or ".join(f'`"{value}"`' for value in type_.values), ""
    names = {
        inspect.BoolType: "true or false",
        inspect.StrType: "text",
        inspect.DictType: "an object",
        inspect.VarTupleType: "a list",
    }
    return names[type(type_)], ""


def with_tables(page: str) -> str:
    """Return the page with its tables generated anew."""
    for kind in STRUCTS:
        name = kind.__name__
        section = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)
        page = section.sub(lambda _, kind=kind: table(kind), page)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
