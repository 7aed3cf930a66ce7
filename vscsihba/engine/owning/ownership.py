"""The LUNs of an HBA that an engine knows, and those of them that it owns.

The owner of a LUN is the engine that serves it; `reconcile` is told which LUNs those are. Changes of an
owned LUN are here too: its size, how Linux treats it, its status.
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
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.owning.opening import Opening
from vscsihba.engine.owning.owned_lun import OwnedLun
from vscsihba.engine.owning.tuning import tune
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.errors import HostError, InUseError, VscsihbaError
from vscsihba.threads import VitalThread

log = logging.getLogger(__name__)

GRACE: Final = 1.0
"""Seconds that the opening of a LUN may take before the next LUN is opened beside it."""

_PATIENCE: Final = 4.0
"""Seconds for the thread that serves the LUNs to take a call."""

RETRY: Final = 5.0
"""Seconds between tries to serve a LUN that has failed, or whose storage cannot be opened."""


class Ownership:
    """The LUNs of an HBA that an engine knows, and those that it owns.

    Args:
        hba_id: 0..255.
        run: The HBA's run directory.
        pump: Serves the rings.
        listeners: Told of commands, failures and notices.

    Attributes:
        known: LUNs that this engine can serve, by number.
        owned: LUNs that it serves.
        created: LUNs that are removed with this engine, unless another engine knows them.
        failures: Reasons why LUNs that it should own are not served.
        busy: LUNs that another thread changes at the moment: `reconcile` leaves them alone.
        leaving: The engine ends: nothing is taken over any more.
        changed: Called, on any thread, when a LUN is no longer busy that `reconcile` has not waited for.
    """

    def __init__(self, hba_id: int, run: Path, *, pump: Pump, listeners: Listeners) -> None:
        self.known: dict[int, LunSpec] = {}
        self.owned: dict[int, OwnedLun] = {}
        self.created: set[int] = set()
        self.failures: dict[int, str] = {}
        self.busy: set[int] = set()
        self.leaving = False
        self.changed: Callable[[], None] = _ignore
        self._id = hba_id
        self._run = run
        self._pump = pump
        self._listeners = listeners
        self._units = UnitsOfHba()
        self._releases: list[threading.Thread] = []

    # Which LUNs are owned.

    def reconcile(self, mine: set[int]) -> bool:
        """Own `mine` of the known LUNs and no others; False if one of them is not released yet.

        A LUN that cannot be served is noted in `failures` and tried again by each call. A LUN that has
        failed while it was served is released and taken over again, as a successor would do.
        """
        if self.leaving:
            return True
        for lun in sorted(self._restartable() - self.busy):
            self._listeners.notice(f"lun {lun}: it is opened again")
            self.release(lun)
        for lun in sorted(self.owned.keys() - mine - self.busy):
            self.release(lun)
        self.failures = {lun: text for lun, text in self.failures.items() if lun in mine}
        wanted = (mine & self.known.keys()) - self.busy - self.owned.keys()
        settled = [self._take_over_within_grace(lun) for lun in sorted(wanted)]
        return all(settled)

    def _take_over_within_grace(self, lun: int) -> bool:
        """Take a LUN over on a thread of its own, and wait for that for up to `GRACE` seconds.

        The LUN is busy until the thread has ended.

        Raises:
            OSError: The machine has no room for another thread.
        """
        opening = Opening(partial(self.take_over, lun), partial(self._opened_late, lun))
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

    def _opened_late(self, lun: int) -> None:
        """Note the end of an opening that `reconcile` has not waited for."""
        self.busy.discard(lun)
        self.changed()

    def _restartable(self) -> set[int]:
        """Return the LUNs that have failed and whose last opening is long enough ago."""
        now = time.monotonic()
        return {
            lun
            for lun, owned in tuple(self.owned.items())
            if owned.failed and not owned.lost and now - owned.since >= RETRY
        }

    @property
    def failing(self) -> bool:
        """Whether a LUN is to be tried again."""
        failed = any(owned.failed and not owned.lost for owned in tuple(self.owned.values()))
        return bool(self.failures) or failed

    @property
    def lost(self) -> bool:
        """Whether every known LUN has failed for good."""
        owned_luns = [self.owned.get(lun) for lun in tuple(self.known)]
        return bool(owned_luns) and all(owned is not None and owned.lost for owned in owned_luns)

    def release(self, lun: int) -> None:
        """Release a LUN as soon as its commands under way have ended; return at once.

        So a LUN whose storage is slow delays no other LUN.

        Raises:
            OSError: The machine has no room for a thread that waits; the LUN is still owned.
        """
        thread = threading.Thread(
            target=_close, args=(self.owned[lun],), name=f"release-lun{lun}", daemon=True
        )
        threads.start(thread)
        del self.owned[lun]
        self._releases = [release for release in self._releases if release.is_alive()]
        self._releases.append(thread)

    def wait_for_releases(self) -> None:
        """Wait for the LUNs that are being released, as long as `OwnedLun.close` waits."""
        for release in self._releases:
            release.join()

    def take_over(self, lun: int) -> bool:
        """Try to own a LUN; False if its last owner has not released it yet.

        A LUN that cannot be served is reported, and True is returned: there is nothing to wait for.
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
        if opened and self.leaving:  # the opening took so long that the engine has not waited for it
            _close(owned)
        elif opened:
            self._note_owned(owned)
        return opened

    def own(self, spec: LunSpec, *, make: bool = False) -> None:
        """Own a LUN that no living engine owns; `make` allows to create its storage.

        Raises:
            InUseError: Another engine owns it.
        """
        owned = self._owned_lun(spec)
        if not owned.open(make=make):
            raise InUseError(f"LUN {spec.lun} of HBA {self._id} is owned by another engine")
        self._note_owned(owned)

    def _note_owned(self, owned: OwnedLun) -> None:
        lun = owned.spec.lun
        self.owned[lun] = owned
        self.failures.pop(lun, None)
        if owned.created:
            self.created.add(lun)
        if owned.grown:
            self._rescan(lun)

    def _owned_lun(self, spec: LunSpec) -> OwnedLun:
        return OwnedLun(
            self._id, spec, self._run, pump=self._pump, listeners=self._listeners, units=self._units
        )

    def leave(self, lun: int) -> None:
        """Release and forget a LUN: its waiting commands are for another engine."""
        if lun in self.owned:
            self.release(lun)
        self.known.pop(lun, None)
        self.failures.pop(lun, None)
        self.created.discard(lun)

    # Changes of a LUN.

    def resize(self, lun: int, size: int) -> bool:
        """Change the size of a LUN's lowest layer to `size` bytes, and have Linux rescan the disk.

        Returns:
            Whether this engine owns the LUN. If not, only its spec is changed, for a later takeover.

        Raises:
            UsageError: It would shrink.
            HostError, OSError: The kernel or the storage refuses; the size is unchanged.
        """
        owned = self.owned.get(lun)
        if owned is not None:
            owned.resize(size)
            self._rescan(lun)
        self.known[lun] = self.known[lun].resized(size)
        return owned is not None

    def resized(self) -> list[int]:
        """Return the LUNs whose storage another client has resized."""
        owned_luns = tuple(self.owned.items())
        return sorted(lun for lun, owned in owned_luns if owned.storage_size is not None)

    def follow_size(self, lun: int) -> None:
        """Give a LUN the size that another client has given its storage, and have Linux rescan the disk.

        If that fails, it is only logged: the disk keeps its size.
        """
        owned = self.owned.get(lun)
        try:
            if owned is not None and owned.follow_size():
                self._rescan(lun)
                log.warning("lun %d: it has grown with its storage", lun)
        except (VscsihbaError, OSError) as error:
            log.error("lun %d: it does not grow with its storage: %s", lun, error)  # noqa: TRY400 - it says all

    def tune(self, lun: int, tuning: Tuning) -> None:
        """Change how Linux treats a LUN.

        Raises:
            HostError: The kernel refuses.
        """
        spec = self.known[lun]
        tune(self._id, lun, tuning, before=spec.tuning)
        self.known[lun] = replace(spec, tuning=tuning)

    def reshaped(self, owned: OwnedLun) -> None:
        """Note that an action of a layer has changed the size or the stack of a LUN.

        Raises:
            HostError: The kernel refuses the size.
        """
        lun = owned.spec.lun
        self.known[lun] = owned.spec
        owned.reshape()
        self._rescan(lun)

    def _rescan(self, lun: int) -> None:
        """Have Linux read the capacity of a LUN again."""
        existing = configfs.find_lun(self._id, lun)
        if existing is not None and existing.address is not None:
            configfs.rescan(existing.address)

    def status(self, lun: int) -> dict[str, Any]:
        """Return the status of a LUN, ready for JSON; any thread may ask."""
        spec, owned = self.known[lun], self.owned.get(lun)
        served = owned.served if owned is not None else None
        status: dict[str, Any] = {
            "lun": lun,
            "owner": served is not None,
            "document": spec.document,
            "removable": spec.removable,
            "appearance": asdict(spec.appearance),
            "local": spec.local,
            "failure": self.failures.get(lun),
        }
        if served is not None:
            status |= {
                "size": served.handler.geometry.size,
                "read_only": not served.unit.writable,
                "failure": str(served.failure) if served.failure is not None else None,
                "counters": served.stats.snapshot(),
            }
        return status

    def statistics(self) -> list[dict[str, Any]]:
        """Return counters and latencies of the LUNs that are served, ready for JSON; any thread may ask.

        A histogram is a list of pairs: a bucket of `vscsihba.latency`, and its count.
        """
        return [
            {
                "lun": lun,
                "counters": served.stats.snapshot(),
                "latencies": {
                    kind: list(each.buckets.items()) for kind, each in served.latencies.snapshot().items()
                },
            }
            for lun, owned in sorted(self.owned.copy().items())
            if (served := owned.served) is not None
        ]

    def clear_statistics(self, lun: int) -> bool:
        """Let the statistics of a LUN begin anew; False if it is not served here.

        Raises:
            HostError: The thread that serves it does not answer.
        """
        owned = self.owned.get(lun)
        if owned is None or (served := owned.served) is None:
            return False
        done = threading.Event()
        self._pump.calls.post(partial(served.clear_statistics, done.set))
        if not done.wait(_PATIENCE):
            raise HostError(f"LUN {lun} of HBA {self._id} does not answer", cure="try again")
        return True


def _ignore() -> None:
    """Do nothing: no listener is set."""


def _close(owned: OwnedLun) -> None:
    """Close an owned LUN, and log an error of that: the caller is a thread of its own."""
    try:
        owned.close()
    except (VscsihbaError, OSError) as error:
        log.error("lun %d: %s", owned.spec.lun, error)  # noqa: TRY400 - it says all
