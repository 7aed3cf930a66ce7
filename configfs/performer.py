"""Applying: carries steps out one by one, and takes them back when one fails.

Knows the order (that of the steps, reversed for the way back) and who does what; what each
step does to the kernel is in `backstores` and `hbas`, and serving rings is the caller's.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from vscsihba.configfs import backstores, hbas
from vscsihba.configfs.found import Backstore
from vscsihba.configfs.steps import (
    CreateBackstore,
    CreateHba,
    DeleteBackstore,
    DeleteHba,
    LinkLun,
    Release,
    Resize,
    Serve,
    SetAttribute,
    Step,
    UnlinkLun,
)
from vscsihba.errors import VscsihbaError


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done now.

    Attributes:
        step: The step that begins.
        number: Of the step, from 1; on the way back, of the step that is undone.
        total: Number of all steps.
        undoing: This is the way back.
        failure: The way back failed here; it goes on with the next one.
    """

    step: Step
    number: int
    total: int
    undoing: bool = False
    failure: VscsihbaError | None = None


Perform = Callable[[Step], None]
Report = Callable[[Progress], None]


def apply(steps: Sequence[Step], perform: Perform, report: Report = lambda _progress: None) -> None:
    """Carry out `steps` in order.

    When one fails or is interrupted, those done before are undone in reverse order, and the cause goes on
    to the caller. A step that fails leaves nothing of itself behind.

    Args:
        steps: From a plan.
        perform: Carries one out: a `Performer`.
        report: Told of each step before it begins, and of trouble on the way back.

    Raises:
        VscsihbaError: Whatever `perform` raises.
    """
    total = len(steps)
    with ExitStack() as undo:
        for number, step in enumerate(steps, start=1):
            report(Progress(step, number, total))
            perform(step)
            inverse = step.inverse()
            if inverse is not None:
                undo.callback(_take_back, Progress(inverse, number, total, undoing=True), perform, report)
        undo.pop_all()


def _take_back(progress: Progress, perform: Perform, report: Report) -> None:
    """Undo one step; a failure is reported and does not keep the others from being undone."""
    report(progress)
    try:
        perform(progress.step)
    except VscsihbaError as error:
        report(Progress(progress.step, progress.number, progress.total, undoing=True, failure=error))


class Performer:
    """Carries steps out on the running kernel.

    Args:
        serve: Opens the ring of a backstore and begins to answer, in another thread or process.
        release: Stops that, given the backstore's name; the ring is closed when it returns.
    """

    def __init__(self, serve: Callable[[Backstore], None], release: Callable[[str], None]) -> None:
        self._serve = serve
        self._release = release

    def __call__(self, step: Step) -> None:
        """Carry out one step.

        Raises:
            VscsihbaError: It failed, and left nothing of itself behind.
        """
        match step:
            case CreateBackstore(spec):
                backstores.create_backstore(spec)
            case Serve(name):
                self._serve(backstores.find_backstore(name))
            case Release(name):
                self._release(name)
            case DeleteBackstore(name):
                backstores.delete_backstore(name)
            case Resize(name, _, new):
                backstores.resize_backstore(name, new)
            case SetAttribute(name, attribute, _, new):
                backstores.set_attribute(name, attribute, new)
            case _:
                _perform_on_hba(step)


def _perform_on_hba(step: CreateHba | DeleteHba | LinkLun | UnlinkLun) -> None:
    match step:
        case CreateHba(hba_id):
            hbas.create_hba(hba_id)
        case DeleteHba(hba_id):
            hbas.delete_hba(hba_id)
        case LinkLun(hba_id, lun, backstore):
            hbas.link_lun(hba_id, lun, backstore)
        case UnlinkLun(hba_id, lun, served=served):
            hbas.unlink_lun(hba_id, lun, served=served)
