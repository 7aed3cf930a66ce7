"""The size of a stack: the option ``size`` of its source, the lowest layer.

The disk itself may be smaller or larger, because of the filters above; it grows as much as the source.
"""

from collections.abc import Mapping

from vscsihba.config.model import StackDocument
from vscsihba.units import exact_size, parse_size

ONCE = ("create", "preallocation", "copy_of")
"""Options that are used only when the storage is created."""


def size_of(stack: StackDocument) -> int | None:
    """Return the size of the source in bytes, None if the document does not say it."""
    size = source_of(stack).get("size")
    return None if size is None else parse_size(str(size))


def size_place(stack: StackDocument) -> str:
    """Return the place of the source's size in a stack, such as ``.next.size``."""
    return ".next" * (len(_layers(stack)) - 1) + ".size"


def with_size(stack: StackDocument, size: int | None) -> StackDocument:
    """Return the stack with another size of its source in bytes; without a size for None."""
    if isinstance(below := stack.get("next"), dict):
        return {**stack, "next": with_size(below, size)}
    rest = {key: value for key, value in stack.items() if key != "size"}
    return rest if size is None else {**rest, "size": exact_size(size)}


def same_but_for_size(one: StackDocument, other: StackDocument) -> bool:
    """Return whether two stacks are the same disk in use, apart from its size."""
    return _lasting(with_size(one, None)) == _lasting(with_size(other, None))


def same_source(one: StackDocument, other: StackDocument) -> bool:
    """Return whether the lowest layers of two stacks are the same, apart from their size."""
    return same_but_for_size(source_of(one), source_of(other))


def source_of(stack: StackDocument) -> StackDocument:
    """Return the lowest layer, or the one that has legs."""
    return _layers(stack)[-1]


def _layers(stack: StackDocument) -> list[StackDocument]:
    """Return the layers from the top down to the source, or to a layer that has legs."""
    layers = [stack]
    while isinstance(below := layers[-1].get("next"), dict):
        layers.append(below)
    return layers


def _lasting(value: object) -> object:
    """Return a stack without the options that are used only for its creation."""
    if isinstance(value, Mapping):
        return {key: _lasting(inner) for key, inner in value.items() if key not in ONCE}
    if isinstance(value, list):
        return [_lasting(inner) for inner in value]
    return value
