"""Actions of the layers of a LUN while it is served, such as snapshots and changes of a mirror's legs.

When this process releases the LUN, the actions under way are told to end by their next progress report, and
the stack stays open until they have ended. Every action can be interrupted and repeated
(`vscsihba.handlers.actions`).
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.actions import ReportProgress, ask, find
from vscsihba.handlers.option_help import describe
from vscsihba.handlers.stack import Document, Stack


@dataclass(frozen=True, slots=True)
class ActionResult:
    """The result of an action.

    Attributes:
        result: The layer's own result, ready for JSON.
        size: The new size of the disk in bytes; None if it is unchanged.
        document: The new document of the stack; None if it is unchanged.
    """

    result: object
    size: int | None
    document: Document | None


class LayerActions:
    """The actions of one open stack.

    Any thread may call them; several actions may be under way.

    Args:
        stack: Open until `wait` has returned True after `stop`.
        failed: Called with the name of an action and its OSError, before the action ends with that.
    """

    def __init__(
        self, stack: Stack, failed: Callable[[str, OSError], None] = lambda _action, _error: None
    ) -> None:
        self._stack = stack
        self._failed = failed
        self._idle = threading.Condition()
        self._running = 0
        self._ended = False

    def known(self) -> dict[str, dict[str, object]]:
        """Return the summary and the arguments of each action of each layer."""
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
        """Return whether an action changes data that a user of the disk has read.

        Raises:
            UsageError: There is no such action.
        """
        return find(self._stack.layer(layer), action).disturbs

    def run(
        self, layer: str, action: str, arguments: Mapping[str, object], progress: ReportProgress
    ) -> ActionResult:
        """Run an action of a layer.

        Raises:
            UsageError: The layer has no such action, or the arguments are not valid.
            HostError, OSError: The action failed, or the LUN was released in the meantime.
        """
        with self._idle:
            self._check_open()
            self._running += 1
        try:
            size, document = self._size, self._stack.document
            result = ask(self._stack.layer(layer), action, arguments, self._guarded(progress))
            return ActionResult(
                msgspec.to_builtins(result),
                None if self._size == size else self._size,
                None if self._stack.document == document else self._stack.document,
            )
        except OSError as error:
            self._failed(action, error)
            raise
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def stop(self) -> None:
        """Begin no more actions, and tell those under way to end; return at once."""
        with self._idle:
            self._ended = True

    def wait(self, patience: float | None = None) -> bool:
        """Wait for the actions under way; False if one of them has not ended within `patience` seconds."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._running, patience)

    @property
    def _size(self) -> int:
        return self._stack.layers[-1].geometry.size

    def _check_open(self) -> None:
        if self._ended:
            raise HostError("the engine that served the LUN is releasing it", cure="try again")

    def _guarded(self, progress: ReportProgress) -> ReportProgress:
        """Return a progress function that ends the reporting action when the LUN is released."""

        def report(done: int, of: int) -> None:
            self._check_open()
            progress(done, of)

        return report


def target_of(known: Mapping[str, Mapping[str, object]], action: str) -> str:
    """Return the only layer that has an action.

    Raises:
        UsageError: No layer has it, or several have.
    """
    layers = [layer for layer, actions in known.items() if action in actions]
    if len(layers) == 1:
        return layers[0]
    if not layers:
        raise UsageError(f"no layer of the disk has an action {action!r}", cure=_offer(known))
    raise UsageError(
        f"several layers have an action {action!r}", cure=f"name one of them: {', '.join(layers)}"
    )


def _offer(known: Mapping[str, Mapping[str, object]]) -> str:
    words = [f"{layer} {action}" for layer, actions in known.items() for action in actions]
    return f"its actions are: {', '.join(words)}" if words else "its layers have no actions"
