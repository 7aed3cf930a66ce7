"""One served LUN, put together: ring, SCSI state and medium, whoever owns them and wherever the ring is."""

import time
from collections.abc import Callable
from typing import Any

from vscsihba import scsi
from vscsihba.engine.owning.flush_record import FlushRecord
from vscsihba.engine.owning.lun_spec import LunSpec
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
    target_core: bool = False,
    free_kept: Callable[[int], None] = lambda _number: None,
) -> ServedLun:
    """Return a LUN that is ready to `begin`.

    Args:
        spec: What is wanted.
        identity: Its names.
        handler: Its stack, open.
        transport: Its ring.
        calls: Of the pump that will serve it.
        listeners: Who is told of commands and failures.
        units: The units of its HBA that the same pump serves.
        state: What the unit keeps for its next life; without, it keeps nothing.
        record: Of failed flushes that initiators do not know of; without, it is kept in memory only.
        target_core: Linux's target core is in front of the ring.
        free_kept: See `ServedLun`.

    Raises:
        HostError: The state cannot be read.
    """
    stats = LunStats()
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
        units=units,
        keep=_keep_nothing if state is None else state.save,
        free_kept=free_kept,
    )


def _keep_nothing(_state: bytes) -> None:
    """Keep nothing: the unit has no next life."""


def _unit_options(spec: LunSpec, state: UnitState | None, record: FlushRecord | None) -> dict[str, Any]:
    """Return what the request and the unit's earlier lives say of it."""
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
