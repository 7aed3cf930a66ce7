"""The size of a stack: what its source, the lowest layer, says under ``size``.

The disk itself may be smaller or larger, as the filters above have it; it grows by what the source grows.
"""

from collections.abc import Mapping

from vscsihba.config.model import StackDocument
from vscsihba.units import exact_size, parse_size

ONCE = ("create", "preallocation", "copy_of")
"""Options that matter while a medium is made, and never again."""


def size_of(stack: StackDocument) -> int | None:
    """Return the bytes that the source is to have, None if that is left to the medium."""
    size = source_of(stack).get("size")
    return None if size is None else parse_size(str(size))


def size_place(stack: StackDocument) -> str:
    """Return where in a stack the size of its source is: ``.next.size``."""
    return ".next" * (len(_layers(stack)) - 1) + ".size"


def with_size(stack: StackDocument, size: int | None) -> StackDocument:
    """Return the stack with a source of another size in bytes; None leaves it to the medium."""
    if isinstance(below := stack.get("next"), dict):
        return {**stack, "next": with_size(below, size)}
    rest = {key: value for key, value in stack.items() if key != "size"}
    return rest if size is None else {**rest, "size": exact_size(size)}


def same_but_for_size(one: StackDocument, other: StackDocument) -> bool:
    """Tell whether two stacks are the same disk in use, be it of another size."""
    return _lasting(with_size(one, None)) == _lasting(with_size(other, None))


def same_source(one: StackDocument, other: StackDocument) -> bool:
    """Tell whether the lowest layers of two stacks are the same, be it of another size."""
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
    """Leave out what is said for the making only."""
    if isinstance(value, Mapping):
        return {key: _lasting(inner) for key, inner in value.items() if key not in ONCE}
    if isinstance(value, list):
        return [_lasting(inner) for inner in value]
    return value
