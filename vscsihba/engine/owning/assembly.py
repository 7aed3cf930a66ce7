"""The assembly of a served LUN from a ring, SCSI state and a handler stack; knows no owner and no kernel."""

import time
from collections.abc import Callable
from typing import Any

from vscsihba import scsi
from vscsihba.engine.owning.flush_record import FlushRecord
from vscsihba.engine.owning.lun_spec import LunSpec
from vscsihba.engine.owning.stats_file import StatsFile
from vscsihba.engine.owning.unit_state import UnitState
from vscsihba.engine.serving.call_queue import CallQueue
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.engine.serving.units_of_hba import UnitsOfHba
from vscsihba.handlers.base import Handler
from vscsihba.stats import LunStats
from vscsihba.transport import Transport


def assemble(
    spec: LunSpec,
    identity: scsi.Identity,
    handler: Handler,
    transport: Transport,
    calls: CallQueue,
    *,
    listeners: Listeners,
    units: UnitsOfHba,
    state: UnitState | None = None,
    record: FlushRecord | None = None,
    statistics: StatsFile | None = None,
    target_core: bool = False,
    free_kept: Callable[[int], None] = lambda _number: None,
) -> ServedLun:
    """Return a LUN that is ready for `ServedLun.begin`.

    Args:
        spec: The wanted LUN.
        identity: Its names.
        handler: Its handler stack, open.
        transport: Its ring.
        calls: The call queue of the pump that will serve it.
        listeners: Told of commands and failures.
        units: The units of its HBA that the same pump serves.
        state: File of the unit's saved state; without it, nothing is saved.
        record: Record of failed flushes that initiators do not know of; without it, memory serves.
        statistics: Open file of its counters and latencies; without it, memory serves.
        target_core: The ring is behind Linux's target core.
        free_kept: See `ServedLun`.

    Raises:
        HostError: The state cannot be read.
    """
    stats = LunStats() if statistics is None else statistics.stats
    kind = scsi.PassThroughUnit if handler.capabilities.whole_cdbs else scsi.LogicalUnit
    unit = kind(
        handler.geometry,
        handler.capabilities,
        identity,
        stats=stats,
        target_core=target_core,
        **_unit_options(spec, state, record),
    )
    return ServedLun(
        spec.lun,
        transport,
        unit,
        handler,
        calls,
        stats=stats,
        listeners=listeners,
        latencies=None if statistics is None else statistics.latencies,
        keep_stats=_keep_no_stats if statistics is None else statistics.keep,
        units=units,
        keep=_keep_nothing if state is None else state.save,
        free_kept=free_kept,
    )


def _keep_nothing(_state: bytes) -> None:
    """Save nothing: the unit has no state file."""


def _keep_no_stats() -> None:
    """Store nothing: the unit has no file for its counters."""


def _unit_options(spec: LunSpec, state: UnitState | None, record: FlushRecord | None) -> dict[str, Any]:
    """Return the arguments of the unit that come from its spec and from its saved state."""
    kept: dict[str, Any] = {"saved_state": state.load()} if state else {}
    if record is not None:
        kept["failed_flush"] = scsi.FailedFlush(
            pending=record.reason is not None,
            record=record.write,
            forget=record.forget,
            clock=lambda: time.monotonic_ns() // 1_000_000,
        )
    return {
        "removable": spec.removable,
        "clock": lambda: time.time_ns() // 1_000_000,
        **spec.appearance.unit_options(),
        **kept,
    }
