"""The list of disks in the arguments of ``vscsitarget``, read into documents.

Each element is a path or a stack of handlers (`vscsihba.handlers.stack_text`). Knows how to read
them, not how disks are served.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vscsihba.errors import NoSuchFileError, UsageError
from vscsihba.handlers.options import did_you_mean, option_types
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import Document, makes_something
from vscsihba.handlers.stack_paths import Use, absolute, uses
from vscsihba.handlers.stack_text import parse, split


@dataclass(frozen=True, slots=True)
class DiskOptions:
    """Options that apply to all disks.

    Attributes:
        create: Size in bytes of files to create; None to create none.
        block_size: Logical block in bytes; None if not given.
        physical_block_size: Physical block in bytes; None if not given.
        read_only: Refuse writes.
    """

    create: int | None = None
    block_size: int | None = None
    physical_block_size: int | None = None
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class DiskArgument:
    """One disk of the list.

    Attributes:
        word: Element of the list, as typed.
        label: Short form, for people.
        document: Stack with absolute paths.
        plain: Absolute path of the lowest layer, if that is a path without a handler; else empty.
    """

    word: str
    label: str
    document: Document
    plain: str = ""

    def lacks(self, error: NoSuchFileError) -> bool:
        """Return whether an error is about the plain file, which ``--create`` would create."""
        return bool(self.plain) and error.message.startswith(f"{self.plain}: ")


def registry_of(files: Iterable[str]) -> Registry:
    """Return a registry that also has the handlers in some Python files.

    Raises:
        UsageError: A file cannot be run, or defines no handler.
    """
    registry = Registry()
    for file in files:
        registry.load_file(Path(file))
    return registry


def read_disks(text: str, registry: Registry, options: DiskOptions) -> list[DiskArgument]:
    """Return the disks in a comma-separated list.

    Raises:
        UsageError: An element is empty or invalid, or two disks would write one file.
    """
    words = split(text, registry)
    if not all(words):
        raise UsageError(f"{text!r} has an empty file name in it", cure="use -files a.img,b.img")
    documents = [parse(word, registry) for word in words]
    _check_different([uses(document, registry) for document in documents])
    return [
        _argument(word, document, options, registry) for word, document in zip(words, documents, strict=True)
    ]


def _argument(word: str, document: Document, options: DiskOptions, registry: Registry) -> DiskArgument:
    wanted = absolute(_with_options(word, document, options, registry), registry)
    lowest = _lowest(wanted)
    plain = str(lowest["path"]) if isinstance(_lowest(document), str) and isinstance(lowest, Mapping) else ""
    return DiskArgument(word, Path(word).name if isinstance(document, str) else word, wanted, plain)


def _lowest(document: object) -> object:
    """Return the lowest layer of a stack."""
    while isinstance(document, Mapping) and "next" in document:
        document = document["next"]
    return document


def _check_different(disks: Sequence[Iterable[Use]]) -> None:
    """Refuse a file that is given twice, unless both disks only read it."""
    seen: dict[Path, Use] = {}
    for use in (use for disk in disks for use in disk):
        other = seen.setdefault(Path(use.path).resolve(), use)
        if other is not use and not (other.shared and use.shared):
            also = f", also as {other.path}" if use.path != other.path else ""
            raise UsageError(f"{use.path} is given twice{also}", cure="give every disk its own files")


def _with_options(word: str, document: Document, options: DiskOptions, registry: Registry) -> Document:
    """Return a document with the options of all disks."""
    if isinstance(document, str):
        return _file(document, options, read_only=options.read_only)
    document = _with_bottom(word, document, options, registry, only_reads=False)
    return {"handler": "readonly", "next": document} if options.read_only else document


def _with_bottom(
    word: str, document: Document, options: DiskOptions, registry: Registry, *, only_reads: bool
) -> Document:
    """Return a stack whose lowest layers have the options, except those that they set themselves."""
    if isinstance(document, str):
        return _file(document, options, read_only=only_reads)
    name, below, legs = (document.get(key) for key in ("handler", "next", "legs"))
    if not isinstance(name, str):
        return document  # invalid; building it will tell
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
    given = {option: size for option, size in wanted.items() if size is not None}
    takes = option_types(kind.Options)
    for option in given:
        if option not in takes:
            raise UsageError(
                f"{word!r}: {kind.name} has no option {option!r}", cure=did_you_mean(option, takes)
            )
    return {**given, **document}


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
    """Return the block sizes of a plain path: as given, else 512; a device has its own."""
    if Path(path).is_block_device():
        sizes = {"block_size": options.block_size, "physical_block_size": options.physical_block_size}
        return {option: size for option, size in sizes.items() if size is not None}
    block_size = options.block_size or 512
    return {"block_size": block_size, "physical_block_size": options.physical_block_size or block_size}
