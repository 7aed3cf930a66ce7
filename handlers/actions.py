"""Actions: operations of a layer beyond the verbs, while its disk is in use.

A layer offers them by name (`Handler.actions`): ``snapshot`` has ``take``, ``mirror`` has
``add_leg``. Unlike a verb, an action comes from a person, not from the disk: it may take
long, tells how far it is, and its arguments are checked like the options of a layer.

An action runs on a thread of its caller's, beside the verbs and beside other actions. What
it returns can be written as JSON. Where its `progress` raises, it ends as soon as it can and leaves
the disk right.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol

from vscsihba.errors import UsageError
from vscsihba.handlers.options import O, Options, convert, did_you_mean

ReportProgress = Callable[[int, int], None]
"""Told what is done, and what there is to do, in a unit of the action's own."""


def quiet(_done: int, _of: int) -> None:
    """Report no progress."""


@dataclass(frozen=True, slots=True)
class Action(Generic[O]):
    """An operation of a layer, with its arguments.

    Attributes:
        summary: One line for a list of what can be asked.
        arguments: Names of its arguments.
        run: Does it, and returns what there is to tell.
        disturbs: It changes what a user of the disk has seen, so there should be none.
    """

    summary: str
    arguments: type[O]
    run: Callable[[O, ReportProgress], object]
    disturbs: bool = False


class NoArguments(Options):
    """No arguments."""


class _Layer(Protocol):
    name: ClassVar[str]

    def actions(self) -> "Mapping[str, Action[Any]]":
        """Return the actions of the layer; see `Handler.actions`."""


def find(layer: _Layer, name: str) -> Action[Any]:
    """Return one of the actions of a layer.

    Raises:
        UsageError: It has none of that name.
    """
    known = layer.actions()
    if name not in known:
        raise UsageError(f"{layer.name} has no action {name!r}", cure=did_you_mean(name, known))
    return known[name]


def ask(
    layer: _Layer, name: str, arguments: Mapping[str, object], progress: ReportProgress = quiet
) -> object:
    """Run one action of a layer, and return its result.

    Raises:
        UsageError: It has none of that name, or the arguments cannot be meant.
        HostError, OSError: The action failed.
    """
    action = find(layer, name)
    place = f"{layer.name}.{name}"
    return action.run(convert(action.arguments, arguments, place=place, handler=place), progress)
