"""START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL: power conditions, loading and ejecting.

A disk has no motor: STOP flushes the cache, and the unit goes on serving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vscsihba.block import Flush
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.block.read_write import flush
from vscsihba.scsi.readiness import PowerCondition
from vscsihba.scsi.response import GOOD, Response, Steps
from vscsihba.scsi.sense import illegal_request

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit

POWER_CONDITIONS = {
    0x1: PowerCondition.ACTIVE,
    0x2: PowerCondition.IDLE,
    0x3: PowerCondition.STANDBY,
    0x7: PowerCondition.ACTIVE,  # LU_CONTROL: no timer changes it
    0xA: PowerCondition.IDLE,  # FORCE_IDLE_0
    0xB: PowerCondition.STANDBY,  # FORCE_STANDBY_0
}
"""POWER CONDITION, SBC-4 "START STOP UNIT command". The others are obsolete or reserved and change
nothing. A forced timer counts as expired."""


def start_stop_unit(lu: LogicalUnit, cdb: Cdb, _buffer: Buffer) -> Response | Steps:
    """START STOP UNIT: SBC-4; flushes the cache before a condition that a power loss may follow."""
    _check_loej(lu, cdb)
    condition = POWER_CONDITIONS.get(cdb["power_condition"])
    leaves = condition is PowerCondition.STANDBY or not (cdb["power_condition"] or cdb["start"])
    lu.counters.events.start_stop_cycles += leaves
    if leaves and not cdb["no_flush"] and not cdb["immed"]:
        return _flush_and_enter(lu, cdb, condition)
    _enter(lu, cdb, condition)
    return flush(lu, later=True) if leaves and not cdb["no_flush"] else GOOD


def _check_loej(lu: LogicalUnit, cdb: Cdb) -> None:
    """Check that the medium may be loaded or ejected, if the CDB says so.

    Raises:
        CheckCondition: The medium is not removable, or is locked.
    """
    if cdb["loej"] and not cdb["power_condition"]:
        if not lu.removable:
            raise cdb.invalid("loej")
        if lu.readiness.removal_prevented:
            raise illegal_request(Asc.MEDIUM_REMOVAL_PREVENTED)


def _flush_and_enter(lu: LogicalUnit, cdb: Cdb, condition: PowerCondition | None) -> Steps:
    yield Flush()
    _enter(lu, cdb, condition)
    return GOOD


def _enter(lu: LogicalUnit, cdb: Cdb, condition: PowerCondition | None) -> None:
    """Change the power condition, or load or eject the medium."""
    if condition is not None:
        lu.readiness.enter(condition)
    elif not cdb["power_condition"]:
        if cdb["loej"]:
            lu.readiness.present = bool(cdb["start"])
            lu.counters.events.load_cycles += cdb["start"]
        elif cdb["start"]:
            lu.readiness.enter(PowerCondition.ACTIVE)
    lu.refresh()


def prevent_allow_medium_removal(lu: LogicalUnit, cdb: Cdb, _buffer: Buffer) -> Response | Steps:
    """PREVENT ALLOW MEDIUM REMOVAL: SBC-4; initiators are not distinguished, so the last command decides.

    The cache is flushed before the medium may be removed.
    """
    if cdb["prevent"] > 1:
        raise cdb.invalid("prevent")
    if lu.readiness.removal_prevented and not cdb["prevent"]:
        return _flush_and_allow(lu)
    lu.readiness.removal_prevented = bool(cdb["prevent"])
    return GOOD


def _flush_and_allow(lu: LogicalUnit) -> Steps:
    if lu.readiness.present:
        yield Flush()
    lu.readiness.removal_prevented = False
    return GOOD
