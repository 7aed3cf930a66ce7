"""The files and devices that the layers of a document store something in, each under its one identity."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vscsihba.config.stacks import Layer
from vscsihba.daemon.holders import Key, key_of, whole_of
from vscsihba.errors import ConfigError
from vscsihba.handlers.options import path_options


@dataclass(frozen=True, slots=True)
class Medium:
    """A file or block device that a layer stores something in.

    Attributes:
        layer: Which.
        place: Of the option that names it.
        path: As the document says it.
        shared: It is not written, so others that do not write may have it too.
        key: What is the same for all of its names.
    """

    layer: Layer
    place: str
    path: Path
    shared: bool
    key: Key


def media_of(layers: Iterable[Layer]) -> Iterator[Medium]:
    """Yield what some layers store something in."""
    for layer in layers:
        shared = layer.document.get("read_only") is True
        for option, is_medium in path_options(layer.kind.Options).items():
            path = layer.document.get(option)
            if is_medium and isinstance(path, str) and path:
                yield Medium(layer, f"{layer.place}.{option}", Path(path), shared, key_of(Path(path)))


def check_apart(media: list[Medium]) -> None:
    """Refuse that two layers write the same file or device, under whatever names.

    Raises:
        ConfigError: Two do.
    """
    seen: dict[Key, Medium] = {}
    for medium in media:
        other = seen.setdefault(medium.key, medium)
        if other is not medium and not (other.shared and medium.shared):
            raise _same(medium, other, "the same as")
    for medium in media:
        whole = whole_of(medium.key)
        if whole is not None and (other := seen.get(whole, medium)) is not medium:
            raise _same(medium, other, "a part of")


def _same(medium: Medium, other: Medium, how: str) -> ConfigError:
    return ConfigError(
        medium.place,
        f"{medium.path} is {how} {other.path} at {other.place}",
        cure="give each of them storage of its own",
    )
