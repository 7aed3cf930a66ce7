"""What the layers of a LUN's stack are asked to do while it is served: snapshots, legs of a mirror.

An action belongs to the time for which this process owns the LUN: when that ends, actions
under way are told to end, by their progress, and the stack stays open until they have. All that
they do can be interrupted and done again (`vscsihba.handlers.actions`).
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.actions import Progress, ask, find
from vscsihba.handlers.option_help import describe
from vscsihba.handlers.stack import Document, Stack


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What has come of an action.

    Attributes:
        result: What the layer tells, as JSON has it.
        size: Of the disk in bytes, where it is another one now; else None.
        document: Of the stack, likewise.
    """

    result: object
    size: int | None
    document: Document | None


class LayerActions:
    """The actions of one open stack.

    Any thread may call it; several actions may be under way.

    Args:
        stack: Open until `wait` has returned True after `stop`.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._idle = threading.Condition()
        self._running = 0
        self._ended = False

    def known(self) -> dict[str, dict[str, object]]:
        """Return what can be asked: summary and arguments of each action of each layer."""
        return {
            layer.name: {
                name: {
                    "summary": action.summary,
                    "disturbs": action.disturbs,
                    "arguments": msgspec.to_builtins(describe(action.arguments)),
                }
                for name, action in layer.actions().items()
            }
            for layer in self._stack.layers
            if layer.actions()
        }

    def disturbs(self, layer: str, action: str) -> bool:
        """Tell whether an action changes what a user of the disk has seen.

        Raises:
            UsageError: There is none of that name.
        """
        return find(self._stack.layer(layer), action).disturbs

    def run(
        self, layer: str, action: str, arguments: Mapping[str, object], progress: Progress
    ) -> ActionResult:
        """Have a layer do something.

        Raises:
            UsageError: It has no such action, or the arguments cannot be meant.
            HostError, OSError: It failed, or the LUN was given up meanwhile.
        """
        with self._idle:
            self._demand_open()
            self._running += 1
        try:
            size, document = self._size, self._stack.document
            result = ask(self._stack.layer(layer), action, arguments, self._guarded(progress))
            return ActionResult(
                msgspec.to_builtins(result),
                None if self._size == size else self._size,
                None if self._stack.document == document else self._stack.document,
            )
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def stop(self) -> None:
        """Let no more actions begin, and have those under way end; return at once."""
        with self._idle:
            self._ended = True

    def wait(self, patience: float | None = None) -> bool:
        """Wait for the actions under way; False if one has not ended within `patience` seconds."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._running, patience)

    @property
    def _size(self) -> int:
        return self._stack.layers[-1].geometry.size

    def _demand_open(self) -> None:
        if self._ended:
            raise HostError("the LUN is being given up by the engine that served it", cure="ask again")

    def _guarded(self, progress: Progress) -> Progress:
        """Return a progress that ends what reports to it once the LUN is given up."""

        def report(done: int, of: int) -> None:
            self._demand_open()
            progress(done, of)

        return report


def target_of(known: Mapping[str, Mapping[str, object]], action: str) -> str:
    """Return the layer that has an action, where just one has.

    Raises:
        UsageError: None has, or several have.
    """
    found = [layer for layer, actions in known.items() if action in actions]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"no layer of the disk has an action {action!r}", cure=_offer(known))
    raise UsageError(f"several layers have an action {action!r}", cure=f"say which: {', '.join(found)}")


def _offer(known: Mapping[str, Mapping[str, object]]) -> str:
    words = [f"{layer} {action}" for layer, actions in known.items() for action in actions]
    return f"there are: {', '.join(words)}" if words else "its layers have none"
