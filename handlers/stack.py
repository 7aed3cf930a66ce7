"""Stacks: layers of handlers built from a document, opened and closed as one.

    {"handler": "readonly", "next": {"handler": "file", "path": "/srv/disk.img"}}

A plain string is the path of a file, which is opened for reading only if a filter above
it never writes, and none between them makes something. Building a stack checks every option of every
layer and opens nothing. This module knows the shape of the document and the order of
opening; what a layer does is the layer's business.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType

from vscsihba.errors import ConfigError, HostError, UsageError, VscsihbaError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.cdb_handler import CdbHandler
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.fan import Fan, Leg
from vscsihba.handlers.filter import Filter
from vscsihba.handlers.options import convert
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.shared.undo import Undo

Document = str | Mapping[str, object]
"""A path, or the options of a layer and its ``handler``; a filter has a ``next``, a fan has ``legs``."""


class Stack:
    """The layers of one disk, with `Checked` on top.

    Used as a context manager, it is open inside, and gives its top.

    Attributes:
        layers: From the bottom, which is a source, to the top.
    """

    def __init__(self, document: Document, layers: list[Handler]) -> None:
        self._document = document
        self._top = Checked(layers[-1])
        self.layers = tuple(layers)
        self._opened = ExitStack()

    @property
    def document(self) -> Document:
        """Its document: as it was given, but for legs that have come or gone since."""
        bottom = self.layers[0]
        return _with_legs(self._document, bottom.legs) if isinstance(bottom, Fan) else self._document

    @property
    def workers(self) -> int:
        """The number of verbs that may run at once."""
        return self._top.workers

    def layer(self, name: str) -> Handler:
        """Return the topmost layer that is of the handler `name`.

        Raises:
            UsageError: There is none.
        """
        for layer in reversed(self.layers):
            if layer.name == name:
                return layer
        there = ", ".join(layer.name for layer in reversed(self.layers))
        raise UsageError(f"the disk has no layer {name!r}", cure=f"it has: {there}")

    def check(self) -> None:
        """Check whether every layer can open, and change nothing.

        Raises:
            UsageError, HostError: As `Handler.check`.
        """
        for layer in self.layers:
            with _blamed(layer):
                layer.check()

    def open(self) -> Checked:
        """Check every layer, open them from the bottom up, and return the top.

        When one fails, those below it are closed again.

        Raises:
            UsageError, HostError, OSError: As `Handler.open`.
        """
        self.check()
        with Undo() as opened:
            for layer in (*self.layers, self._top):
                with _blamed(layer):
                    layer.open()
                opened.callback(layer.close)
            with _blamed(self.layers[-1]):
                _ = self._top.geometry, self._top.capabilities, self._top.identity, self._top.inline
            self._opened = opened.pop_all()
        self.forbid_making()  # a medium that is lost later must not come back empty
        return self._top

    def forbid_making(self) -> None:
        """Let no layer, and no layer of a leg, make, enlarge or rebase its medium from now on."""
        for layer in self.layers:
            layer.may_make = False
            if isinstance(layer, Fan):
                for leg in layer.legs:
                    leg.forbid_making()

    def close(self) -> None:
        """Close the layers from the top down, all of them even if one fails.

        Raises:
            OSError: The last failure.
        """
        self._opened.close()

    def __enter__(self) -> Checked:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def build(
    document: Document,
    *,
    registry: Registry | None = None,
    place: str = "$",
    check_between: bool = False,
    make: bool = True,
) -> Stack:
    """Return the stack that `document` describes, with nothing open.

    Args:
        document: Description of the stack.
        registry: Where handlers come from; the built-in and installed ones by default.
        place: Where the document stands in a larger one, for the messages.
        check_between: Hold every layer to the contract and not just the top one.
        make: The first `open` may make a medium that is missing, where the document asks for it (``create``,
            ``size``); False for a disk that was made before: a missing medium is an error then.

    Raises:
        ConfigError: Something in it cannot be meant.
        HostError: A handler's package is missing.
    """
    stack = _build(document, registry or Registry(), place, check_between=check_between, covered=False)
    if not make:
        stack.forbid_making()
    return stack


def _build(
    document: Document, registry: Registry, place: str, *, check_between: bool, covered: bool
) -> Stack:
    """Build as `build` does; `covered` says that something else sits on it."""
    layers: list[Handler] = []
    for make in reversed(_outline(document, registry, place, covered=covered)):
        layers.append(make(layers))
        if check_between:
            layers.append(Checked(layers[-1]))
    return Stack(document, layers)


@contextmanager
def _blamed(layer: Handler) -> Iterator[None]:
    """Turn an error in the code of a handler into one line.

    Raises:
        HostError: There was one.
    """
    try:
        yield
    except (VscsihbaError, OSError):
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise HostError(
            f"handler {layer.name} is faulty: {type(error).__name__}: {' '.join(str(error).split())}",
            cure=f"look at {last.filename}, line {last.lineno}",
        ) from error


Make = Callable[[list[Handler]], Handler]
"""Makes a layer on top of those that were made before it."""


def _outline(document: object, registry: Registry, place: str, *, covered: bool) -> list[Make]:
    """Check the options of every layer, and return how to make each, from the top down."""
    outline = []
    below: object = document
    only_reads = False
    while below is not None:
        if only_reads and isinstance(below, str):
            below = {"handler": "file", "path": below, "read_only": True}
        only_reads = only_reads and not makes_something(below)
        make, reads, below = _layer(below, registry, place, covered=covered)
        outline.append(make)
        covered = True
        only_reads = only_reads or reads
        place += ".next"
    return outline


def _layer(
    document: object, registry: Registry, place: str, *, covered: bool
) -> tuple[Make, bool, object | None]:
    """Return how to make the topmost layer of `document`, whether it only reads, and what is below it."""
    name, rest = _opened_up(document, place)
    try:
        kind = registry.get(name)
    except UsageError as error:
        raise ConfigError(f"{place}.handler", error.message, cure=error.cure) from error
    if issubclass(kind, Filter):
        below = rest.pop("next", None)
        if below is None:
            raise ConfigError(place, f"handler {name} is a filter", cure='say in "next" what it sits on')
        options = convert(kind.Options, rest, place=place, handler=name)
        return (lambda layers: kind(options, layers[-1])), kind.only_reads, below
    if covered and issubclass(kind, CdbHandler):
        raise ConfigError(
            place,
            f"nothing can sit on {name}: it passes whole commands on, and other handlers know only bytes",
            cure="make it a disk alone",
        )
    if "next" in rest:
        raise ConfigError(f"{place}.next", f"handler {name} is not a filter", cure="put it at the bottom")
    if issubclass(kind, Fan):
        legs = _legs(rest.pop("legs", None), registry, place)
        options = convert(kind.Options, rest, place=place, handler=name)
        return (lambda _: kind(options, legs)), False, None
    options = convert(kind.Options, rest, place=place, handler=name)
    return (lambda _: kind(options)), False, None


def makes_something(document: object) -> bool:
    """Return whether a layer may write when it is opened."""
    return isinstance(document, Mapping) and document.get("create") is True


def _with_legs(document: object, legs: Sequence[Leg]) -> Document:
    """Return a document whose bottom layer has these legs and no others."""
    assert isinstance(document, Mapping)  # noqa: S101 - it has a bottom layer with legs
    if "next" in document:
        return {**document, "next": _with_legs(document["next"], legs)}
    return {**document, "legs": [leg.document for leg in legs]}


def _legs(documents: object, registry: Registry, place: str) -> list[Stack]:
    """Build the legs of a fan."""
    if not isinstance(documents, list) or not documents:
        raise ConfigError(f"{place}.legs", "expected a list of what it sits on")
    return [
        _build(document, registry, f"{place}.legs[{number}]", check_between=False, covered=True)
        for number, document in enumerate(documents)
    ]


def _opened_up(document: object, place: str) -> tuple[str, dict[str, object]]:
    """Return the name of the topmost handler of `document`, and everything else it says."""
    if isinstance(document, str):
        document = {"handler": "file", "path": document}
    if not isinstance(document, Mapping):
        raise ConfigError(place, "expected a path or an object that names a handler")
    rest = dict(document)
    name = rest.pop("handler", None)
    if not isinstance(name, str):
        raise ConfigError(place, "the handler is missing", cure='say for instance "handler": "file"')
    return name, rest
