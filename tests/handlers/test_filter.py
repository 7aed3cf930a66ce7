"""That no verb slips through a filter that does not know it, now or later."""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from vscsihba.block import Geometry, Views
from vscsihba.handlers.base import Handler, InlineVerbs
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.filter import Filter, PassThrough, Transform
from vscsihba.handlers.memory import MemoryHandler

OWN = {"check", "check_reachable", "open", "close", "actions"}
"""What every layer has for itself."""


def verbs() -> set[str]:
    """Everything public that a handler can be asked for and a filter could pass down."""
    return {
        name
        for name, value in vars(Handler).items()
        if not name.startswith("_") and (isinstance(value, property) or inspect.isfunction(value))
    } - OWN


def not_passed_down_by(kind: type[PassThrough]) -> set[str]:
    return {verb for verb in verbs() if getattr(kind, verb) is getattr(Handler, verb)}


class Tripwire:
    """A layer below that may be asked for its settings and nothing else."""

    workers = 1
    never_blocks = True

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} reached the layer below")


class Minimal(Transform):
    """A transform that defines what it has to, and keeps to itself."""

    name = "minimal"

    @property
    def geometry(self) -> Geometry:
        return Geometry(1 << 20)

    def read(self, offset: int, views: Views) -> None:
        pass

    def write(self, offset: int, views: Views, *, fua: bool = False) -> None:
        pass

    def flush(self) -> None:
        pass


def ask(handler: Handler, verb: str) -> object:
    """Call a verb with whatever arguments it takes."""
    member = inspect.getattr_static(type(handler), verb)
    if isinstance(member, property):
        return getattr(handler, verb)
    arguments: dict[str, object] = {
        name: [] if name == "views" else 512 for name in inspect.signature(getattr(handler, verb)).parameters
    }
    views = arguments.pop("views", None)
    keywords = {name: arguments.pop(name) for name in ("may_unmap", "fua") if name in arguments}
    positional = [*arguments.values(), *([views] if views is not None else [])]
    return getattr(handler, verb)(*positional, **keywords)


def tripwired() -> Minimal:
    return Minimal(Handler.Options(), Tripwire())  # type: ignore[arg-type]


# What `Transform` may ask of the layer below by itself: facts, never bytes.
FACTS = {"capabilities", "identity", "is_known_as", "place"}


@pytest.mark.parametrize("verb", sorted(verbs() - FACTS))
def test_transform_passes_no_verb_down_by_default(verb: str) -> None:
    with contextlib.suppress(OSError):
        ask(tripwired(), verb)


def test_transform_does_not_know_a_verb_of_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_offload(self: Handler, offset: int, length: int) -> str:
        return "refused"

    monkeypatch.setattr(Handler, "copy_offload", copy_offload, raising=False)
    assert "copy_offload" in verbs()
    assert ask(tripwired(), "copy_offload") == "refused"
    assert not_passed_down_by(PassThrough) == {"copy_offload"}


def test_pass_through_passes_every_verb_down() -> None:
    assert not_passed_down_by(PassThrough) == set()


def test_transform_delegates_nothing_but_facts() -> None:
    own = {name for name in vars(Transform) if not name.startswith("_")}
    assert own == FACTS - {"place"} | {"write", "flush"}
    assert {"write", "flush", "read", "geometry"} <= Transform.__abstractmethods__


def test_transform_has_no_inline_verbs() -> None:
    assert tripwired().inline == InlineVerbs()


def memory(size: int = 1 << 20) -> MemoryHandler:
    handler = MemoryHandler(MemoryHandler.Options(size=size))
    handler.open()
    return handler


class Inlined(MemoryHandler):
    """A source with inline verbs."""

    @property
    def inline(self) -> InlineVerbs:
        def move(views: Views, offset: int, flags: int) -> int:
            return 0

        return InlineVerbs(read=move, write=move, write_limit=4096)


class Watching(PassThrough):
    name = "watching"

    def read(self, offset: int, views: Views) -> None:
        super().read(offset, views)


def test_pass_through_hides_inline_verbs_of_what_it_wants_to_see() -> None:
    below = Inlined(MemoryHandler.Options(size=512))
    seen = Watching(Handler.Options(), below).inline
    assert seen.read is None
    assert seen.write is not None


def test_inline_verbs_of_a_handler_that_never_blocks_are_its_own() -> None:
    below = memory()
    quick = type("Quick", (Watching,), {"never_blocks": True})(Handler.Options(), below).inline
    slow = Watching(Handler.Options(), below).inline
    assert quick.write is not None
    assert quick.write([memoryview(b"abcd")], 8, 0) == 4
    room = bytearray(4)
    assert quick.read([memoryview(room)], 8, 0) == 4
    assert room == b"abcd"
    assert slow.read is None


def test_filter_runs_no_more_verbs_at_once_than_the_layer_below() -> None:
    below = memory()
    assert Watching(Handler.Options(), below).workers == 1
    assert not Watching(Handler.Options(), below).never_blocks
    assert Checked(below).never_blocks


@pytest.mark.parametrize("kind", [PassThrough, Transform])
def test_a_filter_is_one_of_two_kinds(kind: type[Filter]) -> None:
    assert issubclass(kind, Filter)
    assert not issubclass(PassThrough, Transform)


def test_pass_through_delegates_to_the_same_verb() -> None:
    asked: list[str] = []

    class Recorder:
        workers = 1
        never_blocks = False

        def __getattr__(self, name: str) -> Callable[..., None]:
            asked.append(name)
            return lambda *_, **__: None

    class Bare(PassThrough):
        name = "bare"

    handler = Bare(Handler.Options(), Recorder())  # type: ignore[arg-type]
    for verb in verbs() - {"inline", "asynchronous"}:
        asked.clear()
        ask(handler, verb)
        assert asked == [verb]
