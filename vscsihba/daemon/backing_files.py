"""The files and block devices that layers store data in, each with one key for all its names."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vscsihba.config.stacks import Layer
from vscsihba.daemon.holders import Key, key_of, whole_of
from vscsihba.errors import ConfigError
from vscsihba.handlers.options import path_options


@dataclass(frozen=True, slots=True)
class BackingFile:
    """A file or block device that a layer stores data in.

    Attributes:
        layer: The layer.
        place: The option that names the file, as a path in the document.
        path: The path in the document.
        shared: The layer only reads it, so other layers that only read may use it too.
        key: Equal for all names of the file.
    """

    layer: Layer
    place: str
    path: Path
    shared: bool
    key: Key


def backing_files(layers: Iterable[Layer]) -> Iterator[BackingFile]:
    """Yield the backing files of some layers."""
    for layer in layers:
        shared = layer.document.get("read_only") is True
        for option, stores_data in path_options(layer.kind.Options).items():
            path = layer.document.get(option)
            if stores_data and isinstance(path, str) and path:
                yield BackingFile(layer, f"{layer.place}.{option}", Path(path), shared, key_of(Path(path)))


def check_distinct(files: list[BackingFile]) -> None:
    """Refuse two layers that write the same file or device under any names.

    Raises:
        ConfigError: Two layers do.
    """
    seen: dict[Key, BackingFile] = {}
    for file in files:
        other = seen.setdefault(file.key, file)
        if other is not file and not (other.shared and file.shared):
            raise _conflict(file, other, "the same as")
    for file in files:
        whole = whole_of(file.key)
        if whole is not None and (other := seen.get(whole, file)) is not file:
            raise _conflict(file, other, "a part of")


def _conflict(file: BackingFile, other: BackingFile, relation: str) -> ConfigError:
    return ConfigError(
        file.place,
        f"{file.path} is {relation} {other.path} at {other.place}",
        cure="give each of them storage of its own",
    )
