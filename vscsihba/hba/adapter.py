"""The virtual HBA: LUNs put up, tasks handed out, everything taken down in order.

Knows who serves which LUN; when LUNs are linked and unlinked is the business of `links`.
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
    """One HBA, there while the context is entered.

    Args:
        hba_id: 0..255.
        port: Where it is; by default in the kernel. A `LoopbackPort` needs neither kernel nor root.
        on_management: Told of task management requests, by the thread that is in `next_task`. With
            or without, the tasks that were ended have `Task.aborted` set. Those that had not been
            handed out yet never are, unless a reset has ended them, whose senders take them for done.
        on_ready: Told of each LUN that Linux has made a disk of, by a thread of its own.

    Attributes:
        luns: By number.
    """

    def __init__(
        self,
        hba_id: int,
        *,
        port: Port | None = None,
        on_management: Callable[[Management], None] = lambda _request: None,
        on_ready: OnReady | None = None,
    ) -> None:
        self._id = hba_id
        self._port = port or KernelPort(hba_id)
        self._on_management = on_management
        self._inbox = Inbox()
        self._links = Links(f"hba{hba_id}", self._port, self._inbox, on_ready)
        self._made = Luns(f"hba{hba_id}", self._port, self._inbox, self._links)
        self.luns: dict[int, Lun] = self._made.there

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
            size: Of a raw LUN, whose commands come to `next_task`: bytes, or text such as ``"64MiB"``.
            handler: Of a LUN that is served without the caller: the document of a handler stack.
            block_size: Logical block length of a raw LUN in bytes; a handler has its own.
            identity: Of a raw LUN: a text that names its medium today and after every restart.

        Raises:
            UsageError: An argument cannot be meant, or the number is taken.
            HostError: This machine lacks something, or the kernel refuses.
            OSError: The handler's medium cannot be opened.
            TransportError: The HBA is not there (any more).
        """
        self._demand_running()
        if lun in self.luns:
            raise UsageError(f"LUN {lun} exists already", cure="choose another number")
        if (size is None) == (handler is None):
            raise UsageError(f"LUN {lun} needs either a size or a handler")
        if handler is not None:
            return self._made.add_handled(lun, handler)
        shape = Geometry(parse_size(str(size)), block_size, block_size)
        return self._made.add_raw(lun, shape, identity or f"vscsihba raw LUN {self._id}:{lun}")

    def remove_lun(self, lun: int) -> Lun:
        """Begin to take a LUN away, and return before Linux has let go: see `Lun.wait_until_gone`.

        Linux flushes it, and waits for what is open: a raw LUN's commands are to be answered until
        then, by another thread if this one is to wait. Its number is free when it is gone.

        Raises:
            UsageError: There is no such LUN.
            TransportError: The HBA is not there (any more).
        """
        self._demand_running()
        if lun not in self.luns:
            raise UsageError(f"there is no LUN {lun}")
        return self._made.remove(lun)

    def _demand_running(self) -> None:
        if not self._links.running:
            raise TransportError(f"HBA {self._id} is not there", cure="enter its context first")

    def wait_for_disk(self, lun: int, timeout: float = 60.0) -> Path:
        """Return the disk of a LUN; see `Lun.wait_for_disk`.

        Raises:
            UsageError: There is no such LUN.
            HostError: As there.
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
        """Every LUN is gone: no task will come any more."""
        return self._inbox.ended

    def tasks(self) -> Iterator[Task]:
        """Yield the tasks of all raw LUNs until the HBA is detached.

        Raises:
            TransportError, HostError: As `next_task`; calling it again goes on.
        """
        while not self.detached:
            if task := self.next_task():
                yield task

    def next_task(self, timeout: float | None = None) -> Task | None:
        """Return the next command of any raw LUN, None if none comes or the HBA is detached.

        Any number of threads may wait; each task is handed out once.

        Args:
            timeout: Seconds to wait; None waits for ever, 0 does not wait.

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
        """Return what comes next, task management requests included; see `next_task`."""
        deadline = None if timeout is None else monotonic() + timeout
        while (event := self._take()) is None and not self.detached:
            left = None if deadline is None else max(0.0, deadline - monotonic())
            self._inbox.wait(left)
            if left == 0:
                return self._take()
        return event

    def _take(self) -> Task | Management | None:
        """Return the oldest event that is worth the caller's while, None if there is none.

        A task that was ended before anybody has seen it is not: it is answered here, if it is not yet.
        """
        while isinstance(event := self._inbox.take(), Task) and (may_drop(event.aborted) or event.done):
            _try(partial(event.complete, scsi.Status.TASK_ABORTED))
        if isinstance(event, Exception):
            raise event
        return event

    # The end.

    def stop(self) -> None:
        """Begin to detach, and return at once: go on answering until `tasks` ends by itself.

        So a raw LUN can answer what Linux asks at the end (SYNCHRONIZE CACHE). Twice is harmless, and
        a signal handler may call it.
        """
        self._links.stop()

    def close(self) -> None:
        """Detach, and wait until that is done; twice is harmless.

        What is open, and what still comes to a raw LUN, is refused with CHECK CONDITION, ILLEGAL
        REQUEST, LOGICAL UNIT NOT SUPPORTED: the caller has left. Threads that wait for tasks get none.

        Raises:
            HostError: The kernel refused a step; the others were taken.
        """
        if self._links.started:
            self._links.stop()
            self._made.leave_raw()
            while not self.detached:
                if self._inbox.take() is None:
                    self._inbox.wait()
            self._links.join()
            self._made.stop()
        self._inbox.close()
        if self._links.failures:
            raise self._links.failures.pop(0)


def _try(answer: Callable[[], None]) -> None:
    """Answer commands for whose answer nobody here waits, if that can still be done."""
    try:
        answer()
    except TransportError as error:
        log.debug("%s", error)
