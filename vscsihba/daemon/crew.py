"""The crew of an HBA: its engines, and the LUNs that they serve together.

Every engine knows every LUN, so that each can stand in for the others; which one owns it they make
out among themselves. What could not be served is tried again.

Knows what engines are asked. In which order LUNs come and go is its caller's business.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any, Final

import msgspec

from vscsihba.daemon.asking import DEAD, Asking
from vscsihba.daemon.roster import Member, Roster
from vscsihba.engine.appearance import Appearance, Tuning
from vscsihba.engine.lun_request import LunRequest
from vscsihba.errors import HostError, UsageError, VscsihbaError

log = logging.getLogger(__name__)

_HANDOVER: Final = 30.0
"""Seconds for a LUN to find its owner."""


class Crew:
    """The engines of one HBA.

    Args:
        hba_id: 0..255.
        size: How many there are to be.
        start: Starts one more.
        found: Those that are there already, the eldest first.

    Attributes:
        requests: The LUNs that they are to serve.
        failures: Why some of these are not served, by LUN.
    """

    def __init__(
        self, hba_id: int, size: int, start: Callable[[int], Member], found: Sequence[Member] = ()
    ) -> None:
        self.requests: dict[int, LunRequest] = {}
        self.failures: dict[int, str] = {}
        self._id = hba_id
        self._changed: int | None = None
        self._roster = Roster(
            hba_id,
            size,
            start,
            welcome=self._welcome,
            mend=self._mend,
            beside=self._welcome_beside,
            found=found,
        )
        self._asking = Asking(hba_id, self._roster)

    @property
    def size(self) -> int:
        """How many engines there are to be."""
        return self._roster.size

    @property
    def members(self) -> list[Member]:
        """The engines, the eldest first; one may have died just now."""
        return self._roster.members

    # The whole.

    def begin(self) -> None:
        """Have as many engines as there are to be, and watch over them.

        Raises:
            UsageError, HostError: One cannot be started; none stays.
        """
        try:
            self._roster.fill()
        except VscsihbaError:
            with suppress(VscsihbaError):
                self._roster.shrink(0)
            self._roster.close()
            raise
        self._roster.watch()

    def resume(self, requests: Mapping[int, LunRequest], *, dismiss: bool = True) -> None:
        """Go on after a life of the service, or of the machine: have these LUNs served, as far as that goes.

        Args:
            requests: The LUNs.
            dismiss: Other LUNs that engines know go, unless they are in use.
        """
        with self._roster.lock:
            self.requests = dict(requests)
            for member in self._roster.members if dismiss else ():
                self._dismiss_strangers(member)
            for member in self._roster.members:
                self._welcome(member)
            try:
                self._roster.shrink(self.size)
                self._roster.fill()
            except (VscsihbaError, OSError) as error:
                log.error("no engine for HBA %d: %s", self._id, error)  # noqa: TRY400 - it says all
                self._roster.try_again_later()
            if self.failures:
                self._roster.try_again_later()
        self._roster.watch()

    def set_size(self, size: int) -> None:
        """Have more or fewer engines; LUNs are handed over while I/O goes on.

        Raises:
            UsageError, HostError: One cannot be started, or does not end; there are to be as many as before.
        """
        with self._roster.lock:
            before = self.size
            try:
                self._roster.size = size
                self._roster.fill()
                self._roster.shrink(size)
            except VscsihbaError:
                self._roster.size = before
                self._roster.try_again_later()
                raise

    def end(self) -> None:
        """Have all engines end, and the HBA go with the last; its LUNs must be gone.

        Raises:
            HostError: One does not end.
        """
        before = self.size
        with self._roster.lock:
            try:
                self._roster.shrink(0)
            except VscsihbaError:
                self._roster.size = before
                self._roster.try_again_later()
                raise
        self._roster.close()

    def end_when_free(self) -> None:
        """Have the engines end as soon as none of the disks is in use, and let go of them."""
        members = self.members
        self._roster.size = 0  # none is replaced
        for member in members:
            try:
                member.ask("end", {"when_free": True})
            except VscsihbaError as error:
                log.error("engine %d of HBA %d: %s", member.pid, self._id, error)  # noqa: TRY400 - it says all

    def close(self) -> None:
        """Let go of the engines: they go on."""
        self._roster.close()

    # LUNs.

    def add(self, request: LunRequest, *, make: bool = False) -> None:
        """Have a new LUN served.

        Args:
            request: The LUN.
            make: Its medium may be made if it is missing.

        Raises:
            UsageError, HostError: It cannot be; nothing of it stays.
        """
        with self._changing(request.lun):
            told: list[Member] = []
            try:
                self._asking.all("add_lun", {"request": asdict(request), "make": make}, request.lun, told)
            except VscsihbaError:
                self._take_back(request.lun, told)
                raise
            self.requests[request.lun] = request
            self.failures.pop(request.lun, None)

    def restore(self, request: LunRequest) -> None:
        """Have a LUN served that was taken down; if that fails, note why, and try again later."""
        with self._changing(request.lun):
            try:
                self.add(request, make=False)
            except (VscsihbaError, OSError) as error:
                log.error("LUN %d of HBA %d: %s", request.lun, self._id, error)  # noqa: TRY400 - it says all
                self.requests[request.lun] = request
                self.failures[request.lun] = str(error)
                self._roster.try_again_later()

    def _take_back(self, lun: int, told: list[Member]) -> None:
        """Have those that may know a LUN forget it, the last of them with all that it is made of."""
        while told:
            member = told.pop()
            with suppress(VscsihbaError):  # why the LUN cannot be matters more
                member.ask("remove_lun", {"lun": lun, "leave": bool(told), "force": True})

    def remove(self, lun: int, *, force: bool) -> None:
        """Have a LUN served no longer, and taken down.

        Raises:
            HostError: Its disk is in use, or the kernel refuses; it is served as before.
        """
        with self._changing(lun):
            owner, *others = self._asking.in_order(lun)
            try:
                for member in others:
                    with suppress(UsageError):  # it does not know the LUN, or it alone does
                        self._asking.one(member, "remove_lun", {"lun": lun, "leave": True})
                owner.ask("remove_lun", {"lun": lun, "force": force})
            except VscsihbaError:
                self._serve_again(lun)
                raise
            self.requests.pop(lun, None)
            self.failures.pop(lun, None)

    def _serve_again(self, lun: int) -> None:
        """Have a LUN served that should go and did not."""
        for member in self._roster.members:
            if lun in self.requests and not self._try(member, self.requests[lun]):
                self._roster.try_again_later()

    def enlarge(self, request: LunRequest, size: int) -> None:
        """Have a LUN's lowest layer be of `size` bytes, and Linux notice.

        Args:
            request: The LUN as it is described from then on.
            size: Bytes.

        Raises:
            UsageError, HostError: It cannot be; its size is as before.
        """
        with self._changing(request.lun):
            deadline = time.monotonic() + _HANDOVER
            while not self._enlarge(request.lun, size):
                if time.monotonic() > deadline:
                    raise HostError(f"LUN {request.lun} of HBA {self._id} is served by nobody now")
                time.sleep(0.1)
            self.requests[request.lun] = request

    def _enlarge(self, lun: int, size: int) -> bool:
        """Ask the engines, the likely owner first; tell whether the owner was among them."""
        answers = [
            self._asking.one(member, "resize", {"lun": lun, "size": size})
            for member in self._asking.in_order(lun)
        ]
        return any(answer is not DEAD and answer["owner"] for answer in answers)

    def tune(self, lun: int, tuning: Tuning) -> None:
        """Have Linux treat a LUN otherwise.

        Raises:
            HostError: The kernel refuses.
        """
        with self._changing(lun):
            before = self.requests[lun].tuning
            try:
                self._asking.all("tune_lun", {"lun": lun, "tuning": asdict(tuning)}, lun, [])
            except VscsihbaError:
                with suppress(VscsihbaError):
                    self._asking.all("tune_lun", {"lun": lun, "tuning": asdict(before)}, lun, [])
                raise
            self.requests[lun] = replace(self.requests[lun], tuning=tuning)

    def describe(self, request: LunRequest) -> None:
        """Have engines that come told another description of the same disk."""
        with self._changing(request.lun):
            self.requests[request.lun] = request

    # Engines that come.

    @contextmanager
    def _changing(self, lun: int) -> Iterator[None]:
        """Change one LUN: engines that die meanwhile are replaced, and serve the other LUNs.

        A change may take minutes where storage does not answer. An engine that has come beside it is told
        of the LUN afterwards.
        """
        with self._roster.lock:
            with self._roster.aside:
                outer, self._changed = self._changed, lun
            try:
                yield
            finally:
                with self._roster.aside:
                    self._changed = outer
                    newcomers = [] if outer is not None else self._roster.newcomers[:]
                    for member in newcomers:
                        self._roster.newcomers.remove(member)
                        if lun in self.requests and not self._try(member, self.requests[lun]):
                            self._roster.try_again_later()

    def _welcome_beside(self, member: Member | None) -> bool:
        """Tell an engine of all LUNs but the one that is being changed; False while engines are changed."""
        if self._changed is None:
            return False
        for request in list(self.requests.values()) if member is not None else ():
            if request.lun != self._changed and member is not None:
                self._try(member, request)
        return True

    def _welcome(self, member: Member) -> None:
        """Tell an engine what it is to serve, as far as that can be served."""
        for request in list(self.requests.values()):
            self._try(member, request)

    def _try(self, member: Member, request: LunRequest) -> bool:
        """Have an engine serve a LUN; note why, where it cannot."""
        try:
            self._asking.one(member, "add_lun", {"request": asdict(request)})
        except VscsihbaError as error:
            if self.failures.get(request.lun) != str(error):
                log.error("LUN %d of HBA %d: %s", request.lun, self._id, error)  # noqa: TRY400 - it says all
            self.failures[request.lun] = str(error)
            return False
        self.failures.pop(request.lun, None)
        return True

    def _mend(self) -> bool:
        """Try again to have served what was not; tell whether everything is."""
        for lun in list(self.failures):
            for member in self._roster.members:
                if lun in self.requests and not self._try(member, self.requests[lun]):
                    break
        return not self.failures

    def _dismiss_strangers(self, member: Member) -> None:
        """Have an engine forget LUNs that nobody wants: the service ended while it changed something."""
        try:
            strangers = [lun["lun"] for lun in member.ask("status", {})["luns"] if not self._is_wanted(lun)]
        except VscsihbaError as error:
            log.error("HBA %d: %s", self._id, error)  # noqa: TRY400 - it says all
            return
        for lun in strangers:
            log.warning("LUN %d of HBA %d was being made, removed or replaced, and goes", lun, self._id)
            try:
                self._dismiss(member, lun)
            except VscsihbaError as error:
                log.error("HBA %d: %s", self._id, error)  # noqa: TRY400 - it says all

    def _is_wanted(self, known: Mapping[str, Any]) -> bool:
        """Tell whether a LUN that an engine knows is one of those that are wanted, and the same disk.

        Args:
            known: As the engine's status tells it; engines of older versions tell less.
        """
        wanted = self.requests.get(known["lun"])
        if wanted is None or known["document"] is None:
            return wanted is not None
        appearance = known.get("appearance", asdict(wanted.appearance))
        return wanted.is_like(
            LunRequest(
                wanted.lun,
                known["document"],
                known.get("removable", wanted.removable),
                msgspec.convert(appearance, Appearance),
            )
        )

    def _dismiss(self, member: Member, lun: int) -> None:
        """Have an engine forget a LUN, and take it down if no other knows it."""
        try:
            member.ask("remove_lun", {"lun": lun, "leave": True})
        except UsageError:
            member.ask("remove_lun", {"lun": lun})
