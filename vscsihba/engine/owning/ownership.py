"""The LUNs of an HBA that an engine knows, and those of them that it owns.

Owning is being the one that serves; which are its own, an engine is told (`settle`). What happens to
a LUN while it is owned is here too: it grows, is treated otherwise, is asked how it is.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from vscsihba import configfs, threads
from vscsihba.engine.owning.appearance import Tuning
from vscsihba.engine.owning.lun_spec import AnotherDiskError, LunSpec
from vscsihba.engine.owning.opening import Opening
from vscsihba.engine.owning.owned_lun import OwnedLun
from vscsihba.engine.owning.resizing import reshape, resize
from vscsihba.engine.owning.tuning import tune
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.errors import InUseError, VscsihbaError
from vscsihba.threads import VitalThread

log = logging.getLogger(__name__)

GRACE: Final = 1.0
"""Seconds for a LUN to be opened, after which the next one is not kept waiting."""

RETRY: Final = 5.0
"""Seconds between tries to serve a LUN that has failed, or whose medium cannot be opened."""


class Ownership:
    """What an engine knows and owns of an HBA.

    Args:
        hba_id: 0..255.
        run: The HBA's run directory.
        pump: Serves the rings.
        listeners: Who is told of commands, failures and events.

    Attributes:
        known: What this engine can serve, by LUN.
        owned: What it does serve.
        failures: Why LUNs that it should own are not served, by LUN.
        busy: LUNs that another thread changes just now: `settle` leaves them as they are.
        leaving: The engine ends: nothing is taken over any more.
        changed: Called, on any thread, when a LUN is not busy any more that `settle` has not waited for.
    """

    def __init__(self, hba_id: int, run: Path, *, pump: Pump, listeners: Listeners) -> None:
        self.known: dict[int, LunSpec] = {}
        self.owned: dict[int, OwnedLun] = {}
        self.failures: dict[int, str] = {}
        self.busy: set[int] = set()
        self.leaving = False
        self.changed: Callable[[], None] = _ignore
        self._id = hba_id
        self._run = run
        self._pump = pump
        self._listeners = listeners
        self._units = UnitsOfHba()
        self._leavers: list[threading.Thread] = []

    def settle(self, mine: set[int]) -> bool:
        """Own `mine` of the known LUNs and no others; False if one of them is not free yet.

        One that cannot be served stands in `failures`, and is tried again each time. One that has failed
        while it was served is given up and taken over again, as a successor would do.
        """
        if self.leaving:
            return True
        for lun in sorted(self._restartable() - self.busy):
            self._listeners.notice(f"lun {lun}: it is opened again")
            self.give_up(lun)
        for lun in sorted(self.owned.keys() - mine - self.busy):
            self.give_up(lun)
        self.failures = {lun: text for lun, text in self.failures.items() if lun in mine}
        wanted = (mine & self.known.keys()) - self.busy - self.owned.keys()
        settled = [self._take_over_soon(lun) for lun in sorted(wanted)]
        return all(settled)

    def _take_over_soon(self, lun: int) -> bool:
        """Take a LUN over as `take_over` does; storage that does not answer is waited for on another thread.

        The LUN is busy until then.

        Raises:
            OSError: There is no room for another thread.
        """
        opening = Opening(partial(self.take_over, lun), partial(self._opened, lun))
        self.busy.add(lun)
        try:
            threads.start(VitalThread(opening.run, f"open-lun{lun}"))
        except OSError:
            self.busy.discard(lun)
            raise
        if (settled := opening.result(GRACE)) is None:
            log.warning("lun %d: its storage does not answer while it is opened", lun)
            return True
        self.busy.discard(lun)
        return settled

    def _opened(self, lun: int) -> None:
        """Note that a LUN has been opened, or could not be, that was not waited for."""
        self.busy.discard(lun)
        self.changed()

    def _restartable(self) -> set[int]:
        """Return the LUNs that have failed, and that have been served, or tried, for long enough."""
        now = time.monotonic()
        return {
            lun
            for lun, owned in tuple(self.owned.items())
            if owned.failed and not owned.lost and now - owned.since >= RETRY
        }

    @property
    def failing(self) -> bool:
        """Tell whether a LUN is to be tried again."""
        failed = any(owned.failed and not owned.lost for owned in tuple(self.owned.values()))
        return bool(self.failures) or failed

    @property
    def lost(self) -> bool:
        """Tell whether every known LUN has failed for good."""
        owned_luns = [self.owned.get(lun) for lun in tuple(self.known)]
        return bool(owned_luns) and all(owned is not None and owned.lost for owned in owned_luns)

    def give_up(self, lun: int) -> None:
        """Own a LUN no longer, as soon as what is under way there has ended; return at once.

        A LUN whose storage takes long so holds up no other.

        Raises:
            OSError: There is no room for a thread that waits; the LUN is still owned.
        """
        thread = threading.Thread(target=_close, args=(self.owned[lun],), name=f"leave-lun{lun}", daemon=True)
        threads.start(thread)
        del self.owned[lun]
        self._leavers = [leaver for leaver in self._leavers if leaver.is_alive()]
        self._leavers.append(thread)

    def await_leavers(self) -> None:
        """Wait for the LUNs that were given up, as long as `OwnedLun.close` waits."""
        for leaver in self._leavers:
            leaver.join()

    def take_over(self, lun: int) -> bool:
        """Try to own a LUN; False if its owner has not let go yet.

        One that cannot be served is reported, and counts as settled.
        """
        if lun in self.owned:
            return True
        owned = self._owned_lun(self.known[lun].as_noted(self._run))
        try:
            opened = owned.open(adopt=True)
        except InUseError:  # the last owner's descriptors are being closed
            return False
        except (VscsihbaError, OSError, MemoryError) as error:
            text = str(error) or type(error).__name__
            if self.failures.get(lun) != text:
                self.failures[lun] = text
                self._listeners.failed(f"lun {lun}: {text}")
            return True
        if opened and self.leaving:  # it took so long to open that nobody has waited
            _close(owned)
        elif opened:
            self._take(owned)
        return opened

    def _take(self, owned: OwnedLun) -> None:
        """Note that this engine is the owner."""
        lun = owned.spec.lun
        self.owned[lun] = owned
        self.failures.pop(lun, None)
        if owned.grown:
            self._announce_size(lun)

    def _own(self, spec: LunSpec, *, make: bool = False) -> None:
        """Become the owner of a LUN that no living engine owns; its medium is made only if that is said.

        Raises:
            InUseError: One does.
        """
        owned = self._owned_lun(spec)
        if not owned.open(make=make):
            raise InUseError(f"LUN {spec.lun} of id={self._id} is owned by another engine")
        self._take(owned)

    def _own_noted(self, spec: LunSpec) -> None:
        """Become the owner of what is there, if that is what is wanted."""
        if not spec.agrees(self._run):
            raise AnotherDiskError(self._id, spec.lun)
        self._own(spec)

    def _owned_lun(self, spec: LunSpec) -> OwnedLun:
        return OwnedLun(
            self._id,
            spec,
            self._run,
            pump=self._pump,
            listeners=self._listeners,
            units=self._units,
        )

    def leave(self, lun: int) -> None:
        """Know and own a LUN no longer."""
        if lun in self.owned:
            self.give_up(lun)
        self.known.pop(lun, None)
        self.failures.pop(lun, None)

    # While it is owned.

    def resize(self, lun: int, size: int) -> bool:
        """Let the lowest layer of a LUN have `size` bytes, and Linux notice; False if it is not owned here.

        Raises:
            UsageError: It would shrink.
            HostError, OSError: Machine or medium refuse; the size is as before.
        """
        owned = self.owned.get(lun)
        if owned is not None:
            resize(owned, size, self._pump.calls)
            self._announce_size(lun)
        self.known[lun] = self.known[lun].resized(size)
        return owned is not None

    def tune(self, lun: int, tuning: Tuning) -> None:
        """Have Linux treat a LUN otherwise.

        Raises:
            HostError: The kernel refuses.
        """
        spec = self.known[lun]
        tune(self._id, lun, tuning, before=spec.tuning)
        self.known[lun] = replace(spec, tuning=tuning)

    def reshaped(self, owned: OwnedLun) -> None:
        """Go by what an action of a layer has made of a LUN: another size, another stack.

        Raises:
            HostError: The kernel refuses the size.
        """
        lun = owned.spec.lun
        self.known[lun] = owned.spec
        reshape(owned, self._pump.calls)
        self._announce_size(lun)

    def _announce_size(self, lun: int) -> None:
        """Let Linux notice that a LUN has another size."""
        there = configfs.find_lun(self._id, lun)
        if there is not None and there.address is not None:
            configfs.rescan(there.address)

    def status(self, lun: int) -> dict[str, Any]:
        """Return what is known of a LUN, as JSON has it; any thread may ask."""
        owned = self.owned.get(lun)
        served = owned.served if owned is not None else None
        found: dict[str, Any] = {
            "lun": lun,
            "owner": served is not None,
            "document": self.known[lun].document,
            "removable": self.known[lun].removable,
            "appearance": asdict(self.known[lun].appearance),
            "failure": self.failures.get(lun),
        }
        if served is not None:
            found |= {
                "size": served.handler.geometry.size,
                "read_only": not served.unit.writable,
                "failure": str(served.failure) if served.failure is not None else None,
                "counters": served.stats.snapshot(),
            }
        return found


def _ignore() -> None:
    """Tell nobody."""


def _close(owned: OwnedLun) -> None:
    """Close a tenure on a thread of its own."""
    try:
        owned.close()
    except (VscsihbaError, OSError) as error:
        log.error("lun %d: %s", owned.spec.lun, error)  # noqa: TRY400 - it says all
