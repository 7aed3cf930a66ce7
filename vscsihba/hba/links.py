"""The thread that links and unlinks the LUNs of an HBA, one at a time, in order.

The kernel scans a LUN while it is linked, and flushes it while it is unlinked. Both wait for answers, which
the caller gives for a raw LUN: so the caller's thread can do neither. Scans of one host exclude each other,
hence one at a time. Knows no commands.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from vscsihba.errors import EngineFaultError, HostError, VscsihbaError
from vscsihba.hba.handled import HandledLun
from vscsihba.hba.inbox import Inbox
from vscsihba.hba.lun import Lun
from vscsihba.hba.port import Port
from vscsihba.hba.raw import RawLun
from vscsihba.threads import VitalThread, start

log = logging.getLogger(__name__)

OnReady = Callable[[Lun, Path], None]


class Links:
    """Links LUNs as they are added; on `stop`, removes all of them and ends the inbox.

    Args:
        name: Prefix of the threads' names.
        port: Port of the HBA, open.
        inbox: Gets the errors of links.
        on_ready: Called with each LUN that has become a disk.

    Attributes:
        failures: Errors of removals; complete once the thread has ended.
    """

    def __init__(self, name: str, port: Port, inbox: Inbox, on_ready: OnReady | None) -> None:
        self.failures: list[VscsihbaError | OSError] = []
        self._name = name
        self._port = port
        self._inbox = inbox
        self._on_ready = on_ready
        self._added: dict[int, tuple[Lun, RawLun | HandledLun]] = {}
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._stopping = False
        self._thread = VitalThread(self._run, f"{name}-links", died=self._died)

    @property
    def running(self) -> bool:
        """Whether LUNs can be added."""
        return self._thread.is_alive() and not self._stopping

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Start the thread.

        Raises:
            OSError: The machine has no room for another thread.
        """
        start(self._thread)

    def add(self, lun: Lun, served: RawLun | HandledLun) -> None:
        """Queue a LUN for linking; it is removed at the end."""
        self._added[lun.number] = lun, served
        self._jobs.put(partial(self._link, lun))

    def remove(self, lun: Lun, then: Callable[[], None]) -> None:
        """Queue a LUN for removal; `then` is called if the kernel refuses no step."""
        self._jobs.put(partial(self._remove, lun, then))

    def stop(self) -> None:
        """Begin to remove everything; a second call has no effect, and a signal handler may call it."""
        self._stopping = True
        self._jobs.put(None)

    def join(self) -> None:
        """Wait until everything is removed."""
        self._thread.join()

    def _run(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                job()
            for lun, served in reversed(self._added.values()):
                self.failures += self._remove_steps(lun, served)
            self.failures += _failures(self._port.close)
        finally:
            self._inbox.end()

    def _died(self, _name: str, error: BaseException) -> None:
        """Note in `failures` that nothing was removed: this is the caller's process, which goes on."""
        self.failures.append(EngineFaultError(error))

    def _link(self, lun: Lun) -> None:
        if self._stopping and not self._port.is_linked(lun.number):
            return
        try:
            self._port.link(lun.number)
        except (VscsihbaError, OSError, MemoryError) as error:
            lun.linked.set_exception(error)
            self._inbox.put(error)
            return
        lun.linked.set_result(None)
        if self._on_ready is not None:
            report = partial(_report_ready, lun, self._on_ready)
            try:
                name = f"{self._name}-ready{lun.number}"
                thread = threading.Thread(target=report, name=name, daemon=True)
                start(thread)
            except OSError as error:
                self._inbox.put(
                    HostError(f"LUN {lun.number}: no thread to wait for its disk: {error.strerror}")
                )

    def _remove(self, lun: Lun, then: Callable[[], None]) -> None:
        if self._stopping:  # it is removed with the others
            return
        there, served = self._added.get(lun.number, (None, None))
        if there is not lun or served is None:  # it was removed before
            return
        del self._added[lun.number]
        if not self._remove_steps(lun, served):
            then()

    def _remove_steps(self, lun: Lun, served: RawLun | HandledLun) -> list[VscsihbaError | OSError]:
        """Take all steps of a removal, even after an error; return the errors."""
        failures: list[VscsihbaError | OSError] = []
        if not lun.linked.done():
            lun.linked.set_exception(HostError(f"LUN {lun.number} was removed before it was linked"))
        elif lun.linked.exception() is None:
            failures += _failures(partial(self._port.unlink, lun.number, served=not served.failed))
        if isinstance(served, RawLun):
            self._inbox.remove(served)
        failures += _failures(served.close)
        failures += _failures(partial(self._port.detach, lun.number))
        if failures:
            lun.gone.set_exception(failures[0])
        else:
            lun.gone.set_result(None)
        return failures


def _failures(step: Callable[[], None]) -> list[VscsihbaError | OSError]:
    """Take one step of a removal; return its error, if any."""
    try:
        step()
    except (VscsihbaError, OSError) as error:
        return [error]
    return []


def _report_ready(lun: Lun, on_ready: OnReady) -> None:
    """Wait for the disk of a LUN, and report it; there may come none."""
    try:
        disk = lun.wait_for_disk()
    except HostError as error:
        log.debug("LUN %d: %s", lun.number, error)
    else:
        on_ready(lun, disk)
