"""The LUNs of an HBA that several engines have in common: they come, grow and go, and move between engines.

Knows who is there and whose turn it is. What putting up and taking down a LUN is made of, `luns` knows.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from vscsihba import configfs
from vscsihba.engine.owning.appearance import Tuning
from vscsihba.engine.owning.assignment import assign_luns
from vscsihba.engine.owning.balancer import Balancer
from vscsihba.engine.owning.locks import hold_lock
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.owning.luns import LinuxDisk, Luns
from vscsihba.engine.owning.ownership import RETRY
from vscsihba.engine.owning.peers import Peers
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.pump import Pump
from vscsihba.errors import InUseError, UsageError

_RETRY: Final = 0.05
"""Seconds between looks at a LUN whose last owner has not let go yet."""

_PATIENCE: Final = 30.0
"""Seconds for other engines to let go of a LUN that is to be removed."""


class SharedLuns:
    """What this engine knows of an HBA, and serves of it beside others.

    Any thread may call what is public.

    Args:
        hba_id: 0..255.
        specs: The LUNs that this engine knows.
        run: The HBA's run directory.
        listeners: Who is told of commands, failures and events.

    Attributes:
        id: 0..255.
    """

    _peers: Peers
    """The others; there while this engine is among them."""

    def __init__(self, hba_id: int, specs: Sequence[LunSpec], run: Path, *, listeners: Listeners) -> None:
        self.id = hba_id
        self._run = run
        self._hba_lock = run / "turn.lock"
        self._pump = Pump()
        self._listeners = listeners
        watched = replace(listeners, failed=self._failed)
        self._luns = Luns(hba_id, run, pump=self._pump, listeners=watched)
        self._luns.known = {spec.lun: spec for spec in specs}
        self._luns.changed = self._opened
        self._disks: dict[int, LinuxDisk] = {}
        self._balancer = Balancer(self._settle)
        self._changing = threading.Condition(threading.Lock())

    def _failed(self, text: str) -> None:
        """Report that a LUN is not served, and have it tried again."""
        self._listeners.failed(text)
        self._balancer.changed()

    @property
    def lost(self) -> bool:
        """Tell whether every LUN that this engine knows has failed for good."""
        return self._luns.lost

    @property
    def disks(self) -> list[LinuxDisk]:
        """The LUNs that this engine knows, as Linux sees them."""
        return list(self._disks.values())

    def add(self, spec: LunSpec, *, make: bool = False) -> LinuxDisk:
        """Know one more LUN, and return it as soon as Linux has a disk of it.

        A LUN that is known already and the same is left as it is.

        Args:
            spec: The LUN.
            make: Its medium may be made if it is missing. Not for a LUN that was served before: a medium
                whose file system is not mounted must not be replaced by an empty one.

        Raises:
            UsageError: It is there and another disk, or its stack cannot be meant.
            HostError: Machine or medium refuse; nothing has changed.
        """
        if spec.lun not in self._luns.known:
            spec.build(make=make).check()
        with ExitStack() as undo:
            with self._holding(spec.lun):
                if spec.lun not in self._luns.known:
                    undo.callback(self._withdraw, spec.lun)
                with hold_lock(self._hba_lock):
                    self._luns.add(spec, known_by_others=spec.lun in self._known_by_others(), make=make)
                self._announce()
            # Linux takes its time; other LUNs may have to be taken over meanwhile.
            self._disks[spec.lun] = self._luns.disk(spec.lun)
            undo.pop_all()
        return self._disks[spec.lun]

    def _withdraw(self, lun: int) -> None:
        """Undo a failed `add` as far as it has come."""
        with self._holding(lun):
            if lun not in self._luns.known:
                return
            with hold_lock(self._hba_lock):
                if lun in self._known_by_others():
                    self._luns.leave(lun)
                else:
                    self._luns.remove(lun)
            self._announce()

    def remove(self, lun: int, *, force: bool = False) -> None:
        """Take a LUN down, once no other engine knows it any more.

        One that nobody knows is cleared away if it is there.

        Args:
            lun: Its number.
            force: Also while its disk is in use.

        Raises:
            InUseError: Its disk is in use, or another engine serves it.
            HostError: The kernel refuses.
        """
        with self._holding(lun):
            if not force and (users := configfs.users_of_lun(self.id, lun)):
                raise InUseError(
                    f"LUN {lun} of id={self.id} is in use: {users[0]}", cure="end that, or force it"
                )
            self._await(lambda: lun not in self._known_by_others(), lun, "another engine serves it")
            self._await(lambda: self._is_mine(lun), lun, "its last owner does not let go")
            with hold_lock(self._hba_lock):
                self._disks.pop(lun, None)
                try:
                    if lun in self._luns.known:
                        self._luns.remove(lun)
                    else:
                        self._luns.clear(lun)
                finally:
                    self._announce()

    def leave(self, lun: int) -> None:
        """Know a LUN no longer that another engine goes on with.

        Raises:
            UsageError: This engine knows no such LUN, or no other does.
        """
        with self._holding(lun):
            self._demand(lun)
            if lun not in self._known_by_others():
                raise UsageError(f"no other engine of id={self.id} knows LUN {lun}", cure="remove it")
            self._luns.leave(lun)
            self._disks.pop(lun, None)
            self._announce()

    def resize(self, lun: int, size: int) -> bool:
        """Let a LUN's lowest layer have `size` bytes, and Linux notice; False if another engine owns the LUN.

        That one must be asked too: this one then only knows it for later.

        Raises:
            UsageError: This engine knows no such LUN, or it would shrink.
            HostError, OSError: Machine or medium refuse; the size is as before.
        """
        with self._holding(lun):
            self._demand(lun)
            owned = self._luns.resize(lun, size)
            self._disks[lun] = self._luns.disk(lun)
        return owned

    def tune(self, lun: int, tuning: Tuning) -> None:
        """Have Linux treat a LUN otherwise while it works.

        Raises:
            UsageError: This engine knows no such LUN.
            HostError: The kernel refuses.
        """
        with self._holding(lun):
            self._demand(lun)
            self._luns.tune(lun, tuning)

    @contextmanager
    def _holding(self, lun: int) -> Iterator[None]:
        """Let nobody else change a LUN while the context is entered; other LUNs are taken over meanwhile."""
        with self._changing:
            self._changing.wait_for(lambda: lun not in self._luns.busy)
            self._luns.busy.add(lun)
        try:
            yield
        finally:
            with self._changing:
                self._luns.busy.discard(lun)
                self._changing.notify_all()
            self._balancer.changed()

    def _opened(self) -> None:
        """Let those go on who wait for a LUN that took long to open."""
        with self._changing:
            self._changing.notify_all()
        self._balancer.changed()

    def _is_mine(self, lun: int) -> bool:
        """Take over a LUN that this engine knows; True if there is none."""
        return lun not in self._luns.known or self._luns.take_over(lun)

    def _demand(self, lun: int) -> None:
        if lun not in self._luns.known:
            raise UsageError(f"this engine of id={self.id} knows no LUN {lun}")

    def _await(self, condition: Callable[[], bool], lun: int, obstacle: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise InUseError(f"LUN {lun} of id={self.id} cannot be removed: {obstacle}")
            time.sleep(_RETRY)

    def _announce(self) -> None:
        self._peers.announce(frozenset(self._luns.known))
        self._balancer.changed()

    # While it is up.

    def _settle(self) -> float | None:
        """Give up and take over LUNs as the others expect; return the seconds until another try is due."""
        with self._changing:
            engines = self._peers.engines
            self._adapt_completions(eldest=min(engines).pid == self._peers.me.pid)
            shares = assign_luns(engines)
            mine = {lun for lun, pid in shares.items() if pid == self._peers.me.pid}
            if not self._luns.settle(mine):
                return _RETRY
            return RETRY if self._luns.failing else None

    def _adapt_completions(self, *, eldest: bool) -> None:
        """Let the eldest engine find out for all where commands are best completed: an HBA has one place."""
        tell = partial(configfs.complete_where_answered, self.id) if eldest else None
        self._pump.calls.post(partial(self._pump.adapt_completions, tell))

    def _known_by_others(self) -> frozenset[int]:
        """Return the LUNs that another living engine can serve."""
        return frozenset().union(*(engine.luns for engine in self._peers.other_engines))
