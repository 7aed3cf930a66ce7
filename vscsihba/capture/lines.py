"""Events of a trace as lines for 80 columns, and as JSON."""

import time
from typing import Final

from vscsihba.capture.seen import Seen
from vscsihba.records import Kind

HEADING: Final = f"{'TIME':15} {'LUN':>6} {'TAG':>5} {'BYTES':>7} {'MS':>7}  COMMAND"
"""Heading of the lines without the single times."""

TIMES_HEADING: Final = HEADING.replace(f"{'MS':>7}", f"{'QUEUED':>8} {'STORAGE':>8} {'MS':>7}")
"""Heading of the lines with the single times."""


def front(seen: Seen, *, times: bool) -> str:
    """Return the columns of a command in front of its name: times in milliseconds, the length in bytes."""
    record = seen.record
    parts = [_queued_and_stored(seen)] if times else []
    parts.append(f"{record.seconds * 1e3:7.3f}")
    tag = record.tag & 0xFFFF
    where = f"{seen.hba}:{record.lun}"
    return f"{_clock(seen.time)} {where:>6} {tag:5} {record.length:7} {' '.join(parts)}  "


def text(seen: Seen) -> str:
    """Return a command with its fields, and with its status and sense data if it failed."""
    if seen.record.kind is Kind.MANAGEMENT:
        count = len(seen.record.data) // 8
        return f"{seen.record.sense.decode(errors='replace')} of {count} command{'s' * (count != 1)}"
    words = " ".join(filter(None, seen.described))
    if not seen.record.status:
        return words
    return f"{words}: {', '.join(filter(None, (seen.status, seen.sense)))}"


def as_json(seen: Seen) -> dict[str, object]:
    """Return an event as JSON: times in seconds, lengths in bytes, bytes in hexadecimal digits."""
    record = seen.record
    common: dict[str, object] = {"time": round(seen.time, 6), "hba": seen.hba, "lun": record.lun}
    if record.kind is Kind.MANAGEMENT:
        tags = [int.from_bytes(record.data[at : at + 8], "little") for at in range(0, len(record.data), 8)]
        return {"event": "management", **common, "function": record.sense.decode("ascii"), "tags": tags}
    name, detail = seen.described
    return {
        "event": "command",
        **common,
        "tag": record.tag,
        "name": name,
        "cdb": seen.cdb.hex(),
        "detail": detail,
        "direction": record.direction.name.lower(),
        "length": record.length,
        "transferred": record.returned,
        "status": seen.status,
        "sense": seen.sense,
        "sense_data": record.sense.hex(),
        "seconds": _rounded(record.seconds),
        "queued": _rounded(seen.queued),
        "storage": _rounded(seen.storage),
        "data": record.data.hex(),
    }


def _queued_and_stored(seen: Seen) -> str:
    return f"{_milliseconds(seen.queued)} {_milliseconds(seen.storage)}"


def _milliseconds(seconds: float | None) -> str:
    return f"{'-':>8}" if seconds is None else f"{seconds * 1e3:8.3f}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 7)


def _clock(moment: float) -> str:
    """Return a time of day in local time, with microseconds."""
    whole, fraction = divmod(round(moment * 1_000_000), 1_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(whole))}.{fraction:06}"
