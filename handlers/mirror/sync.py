"""The resync of a mirror's legs, and the return of legs that are gone, in the background.

One thread copies region after region from a leg that has all the data to the others,
keeping writes out of that region meanwhile. When everything that may differ was copied
and flushed, the legs that were behind have all the data. A leg that is gone is tried again
from time to time, less often each time it fails.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from vscsihba.handlers.base import Handler
from vscsihba.handlers.mirror.leg import Standing
from vscsihba.handlers.mirror.members import Members
from vscsihba.handlers.shared.abandonable_pool import attempt
from vscsihba.handlers.shared.vectored import read_bytes, write_bytes

log = logging.getLogger(__name__)

_PAUSE, _LONGEST_PAUSE = 10.0, 600.0
"""Seconds before copying that failed is tried again, at first and at most."""


@dataclass(frozen=True, slots=True)
class ResyncProgress:
    """Progress of the resync.

    Attributes:
        done: Regions that were copied.
        total: Regions that have to be.
    """

    done: int
    total: int


class Synchroniser:
    """The thread that resyncs legs.

    Args:
        members: The legs.
        retry: Seconds before a leg that is gone is tried again; None for never.

    Attributes:
        progress: Of what is being copied; None when nothing is.
    """

    def __init__(self, members: Members, retry: float | None) -> None:
        self.progress: ResyncProgress | None = None
        self._members = members
        self._retry = retry
        self._pause = retry or _PAUSE
        self._wake = threading.Condition()
        self._asked = self._stopping = False
        members.on_drop = self._notice
        self._thread = threading.Thread(target=self._run, name="mirror-sync", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the region that is being copied."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def ask(self) -> None:
        """Wake the thread up."""
        with self._wake:
            self._asked = True
            self._pause = self._retry or _PAUSE
            self._wake.notify()

    def _notice(self) -> None:
        """Let the thread see that a leg was dropped."""
        with self._wake:
            self._wake.notify()

    def _run(self) -> None:
        while True:
            # Whatever goes wrong, the thread goes on: without it no leg would ever come back.
            self._guarded(self._copy_all)
            with self._wake:
                if not (self._stopping or self._asked):
                    if not self._has_reason():
                        self._pause = self._retry or _PAUSE
                        self._wake.wait()
                        continue  # a leg that was dropped is tried again after a pause
                    self._wake.wait(self._pause)
                    self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                self._asked = False
                if self._stopping:
                    return
            self._guarded(self._bring_back)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            attempt(work)
        except OSError as error:
            log.warning("mirror %s: making the legs equal failed: %s", self._members.metadata.uuid, error)

    def _copy_all(self) -> None:
        while not self._stopping and self._has_work() and self._copy():
            pass

    def _has_reason(self) -> bool:
        """Return whether something has to be done after a pause, without being asked for."""
        return self._has_work() or bool(self._retry and self._members.standing(Standing.GONE))

    def _has_work(self) -> bool:
        return bool(self._members.unsettled or self._members.standing(Standing.BEHIND))

    def _bring_back(self) -> None:
        """Try every leg that is gone, and record a drop that could not be recorded."""
        members = self._members
        if members.record.is_due:
            members.keep()
        for leg in members.standing(Standing.GONE):
            if members.admit(leg):
                log.info("mirror %s: %s is back", members.metadata.uuid, leg)

    def _copy(self) -> bool:
        """Copy every dirty region; return whether all were copied.

        Raises:
            OSError: It cannot be done.
        """
        members, behind = self._members, self._members.standing(Standing.BEHIND)
        regions = members.state.dirty() if behind else sorted(members.unsettled)
        try:
            for done, region in enumerate(regions):
                if self._stopping:
                    return False
                self.progress = ResyncProgress(done, len(regions))
                with members.alone_in(region):
                    members.check_answers()
                    if region < members.metadata.regions:  # else the disk was made smaller
                        self._copy_region(region)
                    members.unsettled.discard(region)
            members.everywhere(_flush)
            members.promote(behind)
        finally:
            self.progress = None
        return True

    def _copy_region(self, region: int) -> None:
        """Write a region of the first leg that has all the data to every other leg."""
        members, header = self._members, self._members.metadata
        offset = region * header.region_size
        length = min(header.region_size, header.size - offset)
        data = members.from_one(
            members.standing(Standing.WHOLE), lambda disk: read_bytes(disk, offset, length)
        )
        source = members.standing(Standing.WHOLE)[0]
        others = [leg for leg in members.standing(Standing.WHOLE, Standing.BEHIND) if leg is not source]

        def put(disk: Handler) -> None:
            if any(data):
                write_bytes(disk, offset, data)
            else:
                disk.write_zeroes(offset, length, may_unmap=True)

        members.everywhere(put, others, sure=source)


def _flush(disk: Handler) -> None:
    disk.flush()
