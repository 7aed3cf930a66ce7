"""The paths in a document: made absolute, with the way in which each file is used.

A document that another process will read, in another directory, must not depend on this
one's. Which options are paths the handlers say (`vscsihba.handlers.options`); what cannot
be meant in a document is left unchanged, for `vscsihba.handlers.stack.build` to tell.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vscsihba.errors import VscsihbaError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.filter import Filter
from vscsihba.handlers.options import path_options
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import Document, makes_something


@dataclass(frozen=True, slots=True)
class Use:
    """A file that stores (a part of) a disk.

    Attributes:
        path: As the document says it.
        shared: The disk only reads it, so others that only read may have it too.
    """

    path: str
    shared: bool


def absolute(document: Document, registry: Registry | None = None, folder: Path | None = None) -> Document:
    """Return `document` with every path absolute, and every handler found from anywhere.

    Args:
        document: Any, also one that is wrong.
        registry: Where its handlers come from; the built-in and installed ones by default.
        folder: Where relative paths begin; the current directory by default.
    """
    registry, folder = registry or Registry(), folder or Path.cwd()
    if isinstance(document, str):
        return str(folder / document) if document else document
    changed: dict[str, object] = {**document, **dict(_absolute_options(document, registry, folder))}
    if isinstance(below := document.get("next"), str | Mapping):
        changed["next"] = absolute(below, registry, folder)
    if isinstance(legs := document.get("legs"), list):
        changed["legs"] = [
            absolute(leg, registry, folder) if isinstance(leg, str | Mapping) else leg for leg in legs
        ]
    return changed


def uses(document: Document, registry: Registry, *, only_reads: bool = False) -> Iterator[Use]:
    """Yield the files that a disk is made of.

    Args:
        document: Any, also one that is wrong.
        registry: Where its handlers come from.
        only_reads: The layers above never write.
    """
    if isinstance(document, str):
        yield Use(document, only_reads)
        return
    kind = _kind(document, registry)
    if kind is None:
        return
    for option, is_medium in path_options(kind.Options).items():
        if is_medium and isinstance(path := document.get(option), str) and path:
            yield Use(path, document.get("read_only") is True)
    only_reads = only_reads and not makes_something(document)
    only_reads |= issubclass(kind, Filter) and kind.only_reads
    legs = document.get("legs")
    for below in [document.get("next"), *(legs if isinstance(legs, list) else ())]:
        if isinstance(below, str | Mapping):
            yield from uses(below, registry, only_reads=only_reads)


def _absolute_options(
    document: Mapping[str, object], registry: Registry, folder: Path
) -> Iterator[tuple[str, str]]:
    """Yield the handler and the paths of the topmost layer."""
    if isinstance(name := document.get("handler"), str):
        yield "handler", registry.lasting(name, folder)
    kind = _kind(document, registry)
    for option in path_options(kind.Options) if kind is not None else ():
        if isinstance(path := document.get(option), str) and path:
            yield option, str(folder / path)


def _kind(document: Mapping[str, object], registry: Registry) -> type[Handler] | None:
    """Return the class of the topmost layer, None if there is none."""
    try:
        return registry.get(str(document.get("handler")))
    except VscsihbaError:
        return None
