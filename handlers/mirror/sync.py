"""The resync of a mirror's legs, and the return of legs that are gone, in the background.

One thread copies region after region from a leg that has all the data to the others,
keeping writes out of that region meanwhile. When everything that may differ was copied
and flushed, the legs that were behind have all the data. A leg that is gone is tried again
from time to time, less often each time it fails. When all legs are equal, the thread lets
regions be dirty no more that were not written for a while.
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
        members.on_drop = members.state.on_mark = self._notice
        members.regions.on_unsettled = self.ask
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
        """Let the thread see that a leg was dropped, or regions became dirty."""
        with self._wake:
            self._wake.notify()

    def _run(self) -> None:
        while True:
            # Whatever goes wrong, the thread goes on: without it no leg would ever come back.
            self._guarded("making the legs equal", self._copy_all)
            self._guarded("flushing them to forget regions", self._forget)
            with self._wake:
                if not (self._stopping or self._asked):
                    if not self._has_reason():
                        self._pause = self._retry or _PAUSE
                        self._wake.wait(self._members.until_idle())
                        continue  # a leg that was dropped is tried again after a pause
                    self._wake.wait(self._pause)
                    self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                self._asked = False
                if self._stopping:
                    return
            self._guarded("making the legs equal", self._bring_back)

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        try:
            attempt(work)
        except OSError as error:
            log.warning("mirror %s: %s failed: %s", self._members.metadata.uuid, name, error)

    def _copy_all(self) -> None:
        while not self._stopping and self._has_work() and self._copy():
            pass

    def _forget(self) -> None:
        """Flush the legs, and forget regions, if there are some that were not written for a while.

        Raises:
            OSError: The flush failed; it fails again when an initiator asks for one.
        """
        idle = self._members.idle_regions()
        if idle.numbers:
            self._members.everywhere(_flush, waits=True)
            self._members.forget(idle)

    def _has_reason(self) -> bool:
        """Return whether something has to be done after a pause, without being asked for."""
        return self._has_work() or bool(self._retry and self._members.standing(Standing.GONE))

    def _has_work(self) -> bool:
        return bool(self._members.regions.unsettled or self._members.standing(Standing.BEHIND))

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
        regions = members.state.dirty() if behind else sorted(members.regions.unsettled)
        try:
            for done, region in enumerate(regions):
                if self._stopping:
                    return False
                self.progress = ResyncProgress(done, len(regions))
                with members.regions.alone_in(region):
                    members.check_answers()
                    if region < members.metadata.regions:  # else the disk was made smaller
                        self._copy_region(region)
                    members.regions.unsettled.discard(region)
            members.everywhere(_flush, waits=True)
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
