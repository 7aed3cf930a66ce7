"""The virtual HBA: it adds LUNs, hands out tasks, and removes everything in order.

Knows which LUNs the caller answers and which a handler serves; `links` knows when they are linked.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Self

from vscsihba import scsi
from vscsihba.block import Geometry
from vscsihba.engine.serving.aborts import may_drop
from vscsihba.engine.serving.tap import Taps
from vscsihba.errors import TransportError, UsageError
from vscsihba.handlers.stack import Document
from vscsihba.hba.inbox import Inbox
from vscsihba.hba.kernel_port import KernelPort
from vscsihba.hba.links import Links, OnReady
from vscsihba.hba.lun import Lun
from vscsihba.hba.luns import Luns
from vscsihba.hba.port import Port
from vscsihba.hba.task import Management, Task
from vscsihba.units import parse_size

log = logging.getLogger(__name__)


class VirtualHba:
    """One HBA, which exists while the context is entered.

    Args:
        hba_id: 0..255.
        port: The place of the HBA; by default the kernel. A `LoopbackPort` needs neither kernel nor root.
        on_management: Called with each task management request, by the thread that is in `next_task`.
            In any case the aborted tasks have `Task.aborted` set. Tasks that had not been handed out yet
            are answered for you, except those that a reset has aborted: their senders take them for done.
        on_ready: Called with each LUN that has become a disk, by a thread of its own.

    Attributes:
        id: 0..255.
        luns: The LUNs, by number.
        taps: Taps of the LUNs, for observers of commands.
    """

    def __init__(
        self,
        hba_id: int,
        *,
        port: Port | None = None,
        on_management: Callable[[Management], None] = lambda _request: None,
        on_ready: OnReady | None = None,
    ) -> None:
        self.id = hba_id
        self.taps = Taps()
        self._port = port or KernelPort(hba_id, self.taps)
        self._on_management = on_management
        self._inbox = Inbox()
        self._links = Links(f"hba{hba_id}", self._port, self._inbox, on_ready)
        self._luns = Luns(f"hba{hba_id}", self._port, self._inbox, self._links, self.taps)
        self.luns: dict[int, Lun] = self._luns.existing

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._inbox.close)
            self._port.open()
            self._links.start()
            undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # LUNs.

    def add_lun(
        self,
        lun: int,
        *,
        size: int | str | None = None,
        handler: Document | None = None,
        block_size: int = 512,
        identity: str | None = None,
    ) -> Lun:
        """Add a LUN, and return before Linux has seen it: see `Lun.wait_for_disk`.

        Args:
            lun: Its number, 0..16383.
            size: Size of a raw LUN, whose commands come to `next_task`: bytes, or text such as ``"64MiB"``.
            handler: Document of the handler stack of a LUN that is served for you.
            block_size: Logical block length of a raw LUN in bytes; a handler has its own.
            identity: Identity of a raw LUN's storage: a text that is the same after every restart.

        Raises:
            UsageError: An argument is not valid, or the number is in use.
            HostError: The machine lacks something, or the kernel refuses.
            OSError: The storage of the handler cannot be opened.
            TransportError: The HBA is not entered, or is closed.
        """
        self._check_running()
        if lun in self.luns:
            raise UsageError(f"LUN {lun} exists already", cure="choose another number")
        if (size is None) == (handler is None):
            raise UsageError(f"LUN {lun} needs either a size or a handler")
        if handler is not None:
            return self._luns.add_handled(lun, handler)
        shape = Geometry(parse_size(str(size)), block_size, block_size)
        return self._luns.add_raw(lun, shape, identity or f"vscsihba raw LUN {self.id}:{lun}")

    def remove_lun(self, lun: int) -> Lun:
        """Begin to remove a LUN, and return before Linux has released it: see `Lun.wait_until_gone`.

        Linux flushes the disk and waits for commands under way. Go on answering the commands of a raw LUN
        until then, on another thread if this one waits. The number is free when the LUN is gone.

        Raises:
            UsageError: There is no such LUN.
            TransportError: The HBA is not entered, or is closed.
        """
        self._check_running()
        if lun not in self.luns:
            raise UsageError(f"there is no LUN {lun}")
        return self._luns.remove(lun)

    def _check_running(self) -> None:
        if not self._links.running:
            raise TransportError(f"HBA {self.id} is not running", cure="enter its context first")

    def wait_for_disk(self, lun: int, timeout: float = 60.0) -> Path:
        """Return the disk of a LUN; see `Lun.wait_for_disk`.

        Raises:
            UsageError: There is no such LUN.
            HostError: As `Lun.wait_for_disk`.
        """
        if lun not in self.luns:
            raise UsageError(f"there is no LUN {lun}")
        return self.luns[lun].wait_for_disk(timeout)

    # Tasks.

    def fileno(self) -> int:
        """Return a descriptor that is readable when `next_task` is worth a call, with a timeout of 0."""
        return self._inbox.fileno()

    @property
    def detached(self) -> bool:
        """Whether every LUN is gone, so that no more tasks come."""
        return self._inbox.ended

    def tasks(self) -> Iterator[Task]:
        """Yield the tasks of all raw LUNs until the HBA is detached.

        Raises:
            TransportError, HostError: As `next_task`; call it again to go on.
        """
        while not self.detached:
            if task := self.next_task():
                yield task

    def next_task(self, timeout: float | None = None) -> Task | None:
        """Return the next command of any raw LUN; None after the timeout, or when the HBA is detached.

        Any number of threads may wait; each task is handed out once.

        Args:
            timeout: Seconds to wait; None waits without a limit, 0 does not wait.

        Raises:
            TransportError: A LUN can no longer be served; the others still can.
            HostError: A LUN could not be linked.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while event := self.next_event(None if deadline is None else max(0.0, deadline - monotonic())):
            if isinstance(event, Task):
                return event
            self._on_management(event)
        return None

    def next_event(self, timeout: float | None = None) -> Task | Management | None:
        """Return the next command or task management request; see `next_task`."""
        deadline = None if timeout is None else monotonic() + timeout
        while (event := self._take()) is None and not self.detached:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            self._inbox.wait(left)
            if left == 0:
                return self._take()
        return event

    def _take(self) -> Task | Management | None:
        """Return the oldest event, None if there is none.

        A task that was aborted before it was handed out is answered here and not returned.
        """
        while isinstance(event := self._inbox.take(), Task) and (may_drop(event.aborted) or event.done):
            _try(partial(event.complete, scsi.Status.TASK_ABORTED))
        if isinstance(event, Exception):
            raise event
        return event

    # The end.

    def stop(self) -> None:
        """Begin to detach, and return at once: go on answering until `tasks` ends by itself.

        So you can answer the last commands of Linux (SYNCHRONIZE CACHE). A second call has no effect, and
        a signal handler may call it.
        """
        self._links.stop()

    def close(self) -> None:
        """Detach, and wait until that is done; a second call has no effect.

        Open commands of raw LUNs, and those that still come, are refused with CHECK CONDITION, ILLEGAL
        REQUEST, LOGICAL UNIT NOT SUPPORTED. Threads that wait for tasks get none.

        Raises:
            HostError: The kernel refused a step; the other steps were taken.
        """
        if self._links.started:
            self._links.stop()
            self._luns.leave_raw()
            while not self.detached:
                if self._inbox.take() is None:
                    self._inbox.wait()
            self._links.join()
            self._luns.stop()
        self._inbox.close()
        if self._links.failures:
            raise self._links.failures.pop(0)


def _try(answer: Callable[[], None]) -> None:
    """Answer a command; an error is logged only, since no caller waits for it."""
    try:
        answer()
    except TransportError as error:
        log.debug("%s", error)
