"""The words of a command line that say what becomes a disk, and the documents that they stand for.

A word is a path, as ever, or a stack of handlers (`vscsihba.handlers.stack_text`). This
module knows how words become documents, not what is done with these.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vscsihba.errors import UsageError
from vscsihba.handlers.options import did_you_mean, option_types
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import Document, makes_something
from vscsihba.handlers.stack_paths import Use, absolute, uses
from vscsihba.handlers.stack_text import parse, split


@dataclass(frozen=True, slots=True)
class DiskOptions:
    """What was asked for all disks at once.

    Attributes:
        create: Bytes of the files that are missing; None to make none.
        block_size: Logical block in bytes; None if nothing was said.
        physical_block_size: Physical block in bytes; None if nothing was said.
        read_only: Nothing is to be written.
    """

    create: int | None = None
    block_size: int | None = None
    physical_block_size: int | None = None
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk, as wanted.

    Attributes:
        word: What the person wrote.
        label: The same in short, for people.
        document: Its stack, with nothing in it that depends on this process.
    """

    word: str
    label: str
    document: Document


def registry_of(files: Iterable[str]) -> Registry:
    """Return a registry that has the handlers in some Python files as well.

    Raises:
        UsageError: A file cannot be run, or defines no handler.
    """
    registry = Registry()
    for file in files:
        registry.load_file(Path(file))
    return registry


def read_disks(text: str, registry: Registry, options: DiskOptions) -> list[Disk]:
    """Return the disks in a comma-separated list.

    Raises:
        UsageError: A word is empty or cannot be meant, or two disks would write one file.
    """
    words = split(text, registry)
    if not all(words):
        raise UsageError(f"{text!r} has an empty file name in it", cure="write -files a.img,b.img")
    documents = [parse(word, registry) for word in words]
    _demand_different([uses(document, registry) for document in documents])
    return [
        Disk(
            word,
            Path(word).name if isinstance(document, str) else word,
            absolute(_with_options(word, document, options, registry), registry),
        )
        for word, document in zip(words, documents, strict=True)
    ]


def _demand_different(disks: Sequence[Iterable[Use]]) -> None:
    """Refuse a file that is named twice, unless both only read it."""
    seen: dict[Path, Use] = {}
    for use in (use for disk in disks for use in disk):
        other = seen.setdefault(Path(use.path).resolve(), use)
        if other is not use and not (other.shared and use.shared):
            also = f", also as {other.path}" if use.path != other.path else ""
            raise UsageError(f"{use.path} is named twice{also}", cure="give every disk files of its own")


def _with_options(word: str, document: Document, options: DiskOptions, registry: Registry) -> Document:
    """Return a document with what was asked for all disks."""
    if isinstance(document, str):
        return _file(document, options, read_only=options.read_only)
    document = _with_bottom(word, document, options, registry, only_reads=False)
    return {"handler": "readonly", "next": document} if options.read_only else document


def _with_bottom(
    word: str, document: Document, options: DiskOptions, registry: Registry, *, only_reads: bool
) -> Document:
    """Return a stack with what was asked for put into its lowest layers, as far as these say nothing."""
    if isinstance(document, str):
        return _file(document, options, read_only=only_reads)
    name, below, legs = (document.get(key) for key in ("handler", "next", "legs"))
    if not isinstance(name, str):
        return document  # it cannot be meant, which is told when it is built
    kind = registry.get(name)
    deeper = partial(_with_bottom, word, options=options, registry=registry)
    if isinstance(below, str | Mapping):
        only_reads = only_reads and not makes_something(document)
        only_reads |= getattr(kind, "only_reads", False)
        return {**document, "next": deeper(below, only_reads=only_reads)}
    if isinstance(legs, list):
        changed = [deeper(leg, only_reads=False) if isinstance(leg, str | Mapping) else leg for leg in legs]
        return {**document, "legs": changed}
    wanted = {"block_size": options.block_size, "physical_block_size": options.physical_block_size}
    said = {option: size for option, size in wanted.items() if size is not None}
    takes = option_types(kind.Options)
    for option in said:
        if option not in takes:
            raise UsageError(
                f"{word!r}: {kind.name} has no option {option!r}", cure=did_you_mean(option, takes)
            )
    return {**said, **document}


def _file(path: str, options: DiskOptions, *, read_only: bool) -> Document:
    """Return the document of a plain path."""
    document: dict[str, object] = {
        "handler": "file",
        "path": path,
        **_blocks(path, options),
        "read_only": read_only,
    }
    if options.create is not None and not read_only and not Path(path).exists():
        document |= {"create": True, "size": options.create}
    return document


def _blocks(path: str, options: DiskOptions) -> dict[str, object]:
    """Return the block sizes of a plain path: those that were asked for, else 512; a device has its own."""
    if Path(path).is_block_device():
        sizes = {"block_size": options.block_size, "physical_block_size": options.physical_block_size}
        return {option: size for option, size in sizes.items() if size is not None}
    block_size = options.block_size or 512
    return {"block_size": block_size, "physical_block_size": options.physical_block_size or block_size}
