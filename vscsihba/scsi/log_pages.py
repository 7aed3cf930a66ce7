"""Log pages: counters of a logical unit in T10's layout.

Each page is a function that returns its parameters by code; one table lists the pages (SPC-5 and SBC-4 "Log
parameters"). Counts nothing itself.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vscsihba.scsi.readiness import PowerCondition
from vscsihba.scsi.space import THRESHOLD_SET

if TYPE_CHECKING:
    from collections.abc import Callable

    from vscsihba.scsi.logical_unit import LogicalUnit

    Parameters = dict[int, "Parameter"]
    """Parameters by PARAMETER CODE."""

LogKey = tuple[int, int]
"""PAGE CODE and SUBPAGE CODE."""

SUPPORTED_PAGES: LogKey = (0x00, 0x00)
SUPPORTED_PAGES_AND_SUBPAGES: LogKey = (0x00, 0xFF)

_BOUNDED_COUNTER, _UNBOUNDED_COUNTER, _BINARY_LIST = 0b00, 0b10, 0b11
"""FORMAT AND LINKING of a log parameter."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One log parameter, without its code."""

    value: bytes
    form: int = _BINARY_LIST

    def encode(self, code: int) -> bytes:
        """Return the parameter with its header (SPC-5 "Log parameter structure")."""
        return struct.pack(">HBB", code, self.form, len(self.value)) + self.value


def _counters(*values: int) -> Parameters:
    """Return counters of 8 bytes with the codes 0, 1, 2, ..."""
    return {code: Parameter(value.to_bytes(8, "big"), _BOUNDED_COUNTER) for code, value in enumerate(values)}


def _error_counters(processed: int, uncorrected: int) -> Parameters:
    """Return codes 0 to 6: four kinds of corrected errors and a correction count (none), bytes, losses."""
    return _counters(0, 0, 0, 0, 0, processed, uncorrected)


def write_error_counters(lu: LogicalUnit) -> Parameters:
    """Return the Write Error Counter page."""
    return _error_counters(lu.counters.traffic().write_bytes, lu.counters.events.write_errors)


def read_error_counters(lu: LogicalUnit) -> Parameters:
    """Return the Read Error Counter page."""
    return _error_counters(lu.counters.traffic().read_bytes, lu.counters.events.read_errors)


def verify_error_counters(lu: LogicalUnit) -> Parameters:
    """Return the Verify Error Counter page."""
    return _error_counters(lu.counters.events.verified_bytes, lu.counters.events.verify_errors)


def non_medium_errors(lu: LogicalUnit) -> Parameters:
    """Return the number of errors that were not the medium's."""
    return _counters(lu.counters.events.other_errors)


def logical_block_provisioning(lu: LogicalUnit) -> Parameters:
    """Return free and used space in threshold sets, for this unit alone (scope 01b), if known."""
    if lu.space.known is None:
        return {}
    sets = (lu.space.known.available, lu.space.known.used)
    return {
        code: Parameter(struct.pack(">IB3x", min(size // THRESHOLD_SET, 0xFFFFFFFF), 0x01))
        for code, size in enumerate(sets, start=1)
    }


def start_stop_cycles(lu: LogicalUnit) -> Parameters:
    """Return stops (code 4) and loads (code 6); the date of manufacture is unknown."""
    return {
        0x0004: Parameter(lu.counters.events.start_stop_cycles.to_bytes(4, "big")),
        0x0006: Parameter(lu.counters.events.load_cycles.to_bytes(4, "big")),
    }


def self_test_results(lu: LogicalUnit) -> Parameters:
    """Return the last twenty self-tests, the newest first; unused entries are zeroes."""
    results = [result.encode() for result in lu.self_tests]
    results += [bytes(16)] * (20 - len(results))
    return {code: Parameter(result) for code, result in enumerate(results, start=1)}


def general_statistics(lu: LogicalUnit) -> Parameters:
    """Return commands and blocks read and written, without times."""
    traffic = lu.counters.traffic()
    received, transmitted = traffic.write_bytes // lu.block_size, traffic.read_bytes // lu.block_size
    access = struct.pack(">QQQQ32x", traffic.reads, traffic.writes, received, transmitted)
    return {
        0x0001: Parameter(access, _UNBOUNDED_COUNTER),
        0x0002: Parameter(bytes(8)),  # Idle Time
        0x0003: Parameter(struct.pack(">II", 3, 1)),  # Time Interval: 1 * 10^-3 s
    }


def power_condition_transitions(lu: LogicalUnit) -> Parameters:
    """Return the number of changes to each supported power condition."""
    counts = lu.readiness.transitions
    return {
        code: Parameter(counts[power].to_bytes(4, "big"), _BOUNDED_COUNTER)
        for power, code in _TRANSITION_CODES.items()
    }


_TRANSITION_CODES = {
    PowerCondition.ACTIVE: 0x0001,
    PowerCondition.IDLE: 0x0002,  # idle_a
    PowerCondition.STANDBY: 0x0008,  # standby_z
}


def informational_exceptions(_lu: LogicalUnit) -> Parameters:
    """Return that no failure is predicted, and no temperature (FFh)."""
    return {0x0000: Parameter(bytes([0, 0, 0xFF, 0]))}


LOGICAL_BLOCK_PROVISIONING: LogKey = (0x0C, 0x00)

PAGES: dict[LogKey, tuple[str, Callable[[LogicalUnit], Parameters]]] = {
    (0x02, 0x00): ("Write Error Counter", write_error_counters),
    (0x03, 0x00): ("Read Error Counter", read_error_counters),
    (0x05, 0x00): ("Verify Error Counter", verify_error_counters),
    (0x06, 0x00): ("Non-Medium Error", non_medium_errors),
    LOGICAL_BLOCK_PROVISIONING: ("Logical Block Provisioning", logical_block_provisioning),
    (0x0E, 0x00): ("Start-Stop Cycle Counter", start_stop_cycles),
    (0x10, 0x00): ("Self-Test Results", self_test_results),
    (0x19, 0x00): ("General Statistics and Performance", general_statistics),
    (0x1A, 0x00): ("Power Condition Transitions", power_condition_transitions),
    (0x2F, 0x00): ("Informational Exceptions", informational_exceptions),
}
"""Every page with parameters: T10's name, and the function that returns them."""
