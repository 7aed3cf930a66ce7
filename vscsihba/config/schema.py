"""The JSON Schema of a document, for editors and for other programs that write one.

It is derived from the annotations that `vscsihba.config.load` checks. It has fewer rules than those checks:
none about two numbers that must differ, or options that belong together.

``python -m vscsihba.config.schema`` writes the schema that the package ships.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from vscsihba.config.export import Export
from vscsihba.config.model import SCHEMA_KEY, BackstoreName, Hba
from vscsihba.errors import HostError
from vscsihba.handlers.fan import Fan
from vscsihba.handlers.filter import Filter
from vscsihba.handlers.options import size_options
from vscsihba.handlers.registry import Registry

SHIPPED: Final = Path(__file__).parent / "schema.json"
"""The schema of the handlers that come with the package."""

Schema = dict[str, Any]

_REF: Final = "#/$defs/"
_STACK: Final = {"$ref": f"{_REF}stack"}


def schema(names: Iterable[str] | None = None, registry: Registry | None = None) -> Schema:
    """Return the schema of a document (JSON Schema, draft 7).

    Args:
        names: The handlers that documents can name; by default all that this machine knows. A handler in
            a file can always be named, with any options.
        registry: The known handlers.
    """
    registry = registry or Registry()
    known = sorted(registry.names() if names is None else names)
    definitions: Schema = {"size": _size(), "stack": _any_stack(known), "in-a-file": _in_a_file()}
    for name in known:
        definitions |= _handler(name, registry)
    (hba_schema, export_schema), parts = msgspec.json.schema_components(
        [Hba, Export], ref_template=f"{_REF}{{name}}"
    )
    names_schema = msgspec.json.schema(BackstoreName)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "vscsihba document",
        "description": "The virtual SCSI disks of a machine.",
        "type": "object",
        "properties": {
            "version": {"const": 1, "description": "Version of the document's format."},
            SCHEMA_KEY: {"type": "string", "description": "Location of this schema; for editors only."},
            "backstores": {
                "type": "object",
                "description": "The storage of disks, by name.",
                "propertyNames": names_schema,
                "additionalProperties": _STACK,
                "default": {},
            },
            "hbas": {"type": "array", "description": "The HBAs.", "items": hba_schema, "default": []},
            "exports": {
                "type": "array",
                "description": "Targets that show backstores to other computers.",
                "items": export_schema,
                "default": [],
            },
        },
        "required": ["version"],
        "additionalProperties": False,
        "$defs": {**definitions, **parts},
    }


def shipped() -> Schema:
    """Return the schema of the handlers that come with the package."""
    registry = Registry()
    return schema(name for name in registry.names() if _is_built_in(name, registry))


def _is_built_in(name: str, registry: Registry) -> bool:
    return registry.get(name).__module__.startswith("vscsihba.handlers.")


def _size() -> Schema:
    return {
        "description": 'Bytes, as a number or as text: "512M", "10GiB", "1.5TiB".',
        "anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*([kKmMgGtTpPeE]([iI]?[bB])?|[bB])?\s*$"},
        ],
    }


def _any_stack(names: list[str]) -> Schema:
    path = {"type": "string", "minLength": 1, "description": "The path of a file, for the handler file."}
    handlers = [{"$ref": f"{_REF}{name}"} for name in [*map(_definition, names), "in-a-file"]]
    return {"description": "Layers of a disk, the topmost first.", "anyOf": [path, *handlers]}


def _definition(name: str) -> str:
    return f"handler-{name}"


def _in_a_file() -> Schema:
    """Return the schema of a handler in a Python file, which may have any options."""
    return {
        "type": "object",
        "description": "A handler in a Python file: FILE.py, or FILE.py:NAME for one of several.",
        "properties": {"handler": {"type": "string", "pattern": r"\.py(:[^:/]+)?$"}, "next": _STACK},
        "required": ["handler"],
    }


def _handler(name: str, registry: Registry) -> Schema:
    """Return the schemas of a handler's layer, and of the structs in its options."""
    named = {"const": name}
    try:
        kind = registry.get(name)
    except HostError:  # a package is missing, so its options are unknown
        return {
            _definition(name): {"type": "object", "properties": {"handler": named}, "required": ["handler"]}
        }
    prefix = f"{_definition(name)}-"
    _, parts = msgspec.json.schema_components([kind.Options], ref_template=f"{_REF}{prefix}{{name}}")
    options = parts.pop(kind.Options.__name__)
    sizes = {key: _with_text(options["properties"][key]) for key in size_options(kind.Options)}
    below: Schema = {}
    if issubclass(kind, Filter):
        below = {"next": {**_STACK, "description": "The layer below it."}}
    elif issubclass(kind, Fan):
        below = {
            "legs": {"type": "array", "items": _STACK, "minItems": 1, "description": "The layers below."}
        }
    layer = {
        "type": "object",
        "description": _first_line(kind.__doc__),
        "properties": {"handler": named, **options["properties"], **sizes, **below},
        "required": ["handler", *options.get("required", []), *below],
        "additionalProperties": False,
    }
    return {_definition(name): layer, **{f"{prefix}{key}": part for key, part in parts.items()}}


def _with_text(option: Schema) -> Schema:
    """Return the schema of a size, which may be a text too."""
    others = [each for each in option.get("anyOf", []) if each.get("type") != "integer"]
    size: Schema = {"anyOf": [{"$ref": f"{_REF}size"}, *others]}
    return size | {key: option[key] for key in ("description", "default") if key in option}


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


if __name__ == "__main__":
    SHIPPED.write_text(json.dumps(shipped(), indent=2, ensure_ascii=False) + "\n")
