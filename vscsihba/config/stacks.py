"""Stacks in a document: checked by their handlers, and put into their canonical form.

Two stacks that mean the same are equal in that form: layers are objects, paths absolute, sizes in their
largest unit, defaults left out, keys in the order that the handler declares. Opens nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vscsihba.config.fields import shown
from vscsihba.config.model import StackDocument
from vscsihba.config.sizes import source_of, with_size
from vscsihba.errors import ConfigError, HostError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.fan import Fan
from vscsihba.handlers.filter import Filter
from vscsihba.handlers.options import convert, default_of, size_options
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import Document as Stack
from vscsihba.handlers.stack import build
from vscsihba.handlers.stack_paths import absolute
from vscsihba.units import exact_size


def read_stack(value: object, base: Path, registry: Registry, place: str) -> StackDocument:
    """Return the canonical form of a stack.

    Args:
        value: The value in the document; a text is the path of a file.
        base: The folder at which relative paths begin; absolute.
        registry: The known handlers.
        place: Its place in the document, for messages.

    Raises:
        ConfigError: An option of a layer is unknown or wrong, or the layers do not go together.
        HostError: A handler's package is missing.
    """
    if not isinstance(value, str | Mapping):
        raise ConfigError(
            place, f"it cannot be {shown(value)}", cure="use the path of a file, or an object, {...}"
        )
    stack = absolute(value, registry, base)
    _check_options(stack, registry, place)
    return canonical(stack, registry)


def _check_options(stack: Stack, registry: Registry, place: str) -> None:
    """Make every handler check its options, and add the place to its errors."""
    try:
        build(stack, registry=registry, place=place)
    except ConfigError:
        raise
    except UsageError as error:
        raise ConfigError(place, error.message, cure=error.cure) from error
    except HostError as error:
        raise HostError(f"{place}: {error.message}", cure=error.cure) from error
    except Exception as error:  # a handler of another package may raise anything
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            place, f"a handler raised an exception for its options: {text}", cure="correct the handler"
        ) from error


def canonical(stack: Stack, registry: Registry, *, only_reads: bool = False) -> StackDocument:
    """Return the canonical form of a stack that can be built.

    Args:
        stack: The stack, with absolute paths.
        registry: The known handlers.
        only_reads: A layer above never writes, so a bare path below it is opened for reading.
    """
    if isinstance(stack, str):
        stack = {"handler": "file", "path": stack, **({"read_only": True} if only_reads else {})}
    kind = registry.get(str(stack["handler"]))
    layer: StackDocument = {"handler": stack["handler"], **_options(kind, stack)}
    if issubclass(kind, Filter):
        layer["next"] = canonical(_stack(stack["next"]), registry, only_reads=only_reads or kind.only_reads)
    elif issubclass(kind, Fan):
        legs = stack["legs"]
        assert isinstance(legs, list)  # noqa: S101  # it can be built
        layer["legs"] = [canonical(_stack(leg), registry) for leg in legs]
    return layer


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a stack.

    Attributes:
        place: Its place in the document.
        kind: Its handler.
        document: Its object in the document, including the layers below.
        only_reads: The layers above it never write.
    """

    place: str
    kind: type[Handler]
    document: StackDocument
    only_reads: bool


def layers_of(
    stack: StackDocument, registry: Registry, place: str, *, only_reads: bool = False
) -> Iterator[Layer]:
    """Yield every layer of a canonical stack and of its legs, each before the layers below it."""
    kind = registry.get(str(stack["handler"]))
    yield Layer(place, kind, stack, only_reads)
    if isinstance(below := stack.get("next"), dict):
        reads = only_reads or (issubclass(kind, Filter) and kind.only_reads)
        yield from layers_of(below, registry, f"{place}.next", only_reads=reads)
    if isinstance(legs := stack.get("legs"), list):
        for number, leg in enumerate(legs):
            yield from layers_of(leg, registry, f"{place}.legs[{number}]")


def enlarged(name: str, stack: StackDocument, size: int, registry: Registry) -> StackDocument:
    """Return a canonical stack whose source, the lowest layer, has another size.

    Args:
        name: Name of the backstore, for messages.
        stack: Its stack.
        size: New size of the source in bytes.
        registry: The known handlers.

    Raises:
        UsageError: The source has no option for its size.
    """
    source = source_of(stack)
    kind = registry.get(str(source["handler"]))
    if "size" not in size_options(kind.Options):
        raise UsageError(
            f"{name} cannot grow while the disk is in use: its lowest layer, {kind.name}, takes no size",
            cure="enlarge its storage, and apply that with --replace",
        )
    if source.get("read_only") is True:
        raise UsageError(
            f"{name} cannot grow: its lowest layer, {kind.name}, is read-only",
            cure="replace it by a larger one",
        )
    return with_size(stack, size)


def _stack(value: object) -> Stack:
    assert isinstance(value, str | Mapping)  # noqa: S101  # it can be built
    return value


def _options(kind: type[Handler], stack: Mapping[str, object]) -> dict[str, object]:
    """Return the options of a layer without defaults, in the order of their declaration."""
    given = {key: value for key, value in stack.items() if key not in ("handler", "next", "legs")}
    options = msgspec.to_builtins(convert(kind.Options, given, place="$", handler=kind.name))
    assert isinstance(options, dict)  # noqa: S101  # for the type checker
    sizes = size_options(kind.Options)
    return {
        name: exact_size(value) if name in sizes and isinstance(value, int) else value
        for name, value in options.items()
        if name in given and value != default_of(kind.Options, name)
    }
