"""Which commands a trace shows: by operation code, blocks, latency and status."""

import re
from collections.abc import Callable, Iterable
from typing import Final

from vscsihba import scsi
from vscsihba.capture.seen import Seen
from vscsihba.errors import UsageError
from vscsihba.handlers.options import did_you_mean

Filter = Callable[[Seen], bool]
"""Returns whether a command is shown."""

_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(us|ms|s)", re.ASCII)
_CODE: Final = re.compile(r"0x([0-9a-f]{1,2})|([0-9a-f]{1,2})h", re.ASCII)
_RANGE: Final = re.compile(r"(\d{1,20})(?:-(\d{0,20}))?", re.ASCII)


def by_opcode(text: str) -> Filter:
    """Return a filter for commands by name or operation code: ``READ``, ``READ(10)``, ``28h``, ``0x28``.

    Args:
        text: Names and operation codes, separated by commas. ``READ`` means all of its lengths.

    Raises:
        UsageError: No command has such a name.
    """
    codes: set[int] = set()
    names: set[str] = set()
    known = {command.name for command in scsi.TABLE.values()}
    families = {name.partition("(")[0] for name in known}
    for word in filter(None, map(str.strip, text.split(","))):
        if code := _CODE.fullmatch(word.lower()):
            codes.add(int(code[1] or code[2], 16))
        elif word.upper() in known | families:
            names.add(word.upper())
        else:
            cure = did_you_mean(word.upper(), sorted(known | families))
            raise UsageError(f"no command is named {word!r}", cure=cure)

    def chosen(seen: Seen) -> bool:
        name = seen.described[0]
        return seen.cdb[:1] in {bytes([code]) for code in codes} or bool(
            {name, name.partition("(")[0]} & names
        )

    return chosen


def by_blocks(text: str) -> Filter:
    """Return a filter for commands that touch blocks of a range: ``2048-4095``, ``2048-`` or ``2048``.

    Raises:
        UsageError: It is not a range.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a range of blocks", cure='write it like "2048-4095" or "2048-"')
    first = int(match[1])
    last = first if match[2] is None else int(match[2]) if match[2] else 1 << 64
    if last < first:
        raise UsageError(f"the range of blocks {text!r} ends before it begins")

    def chosen(seen: Seen) -> bool:
        if seen.blocks is None:
            return False
        lba, count = seen.blocks
        return lba <= last and first < lba + max(count, 1)

    return chosen


def slower_than(text: str) -> Filter:
    """Return a filter for commands that took longer: ``5ms``, ``250us`` or ``1.5s``.

    Raises:
        UsageError: It is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a duration", cure='write it like "5ms", "250us" or "1.5s"')
    least = float(match[1]) * _UNITS[match[2]]
    return lambda seen: seen.record.seconds > least


def failed(seen: Seen) -> bool:
    """Return whether a command ended with another status than GOOD."""
    return bool(seen.record.status)


def all_of(filters: Iterable[Filter]) -> Filter:
    """Return a filter for the commands that all of some filters choose."""
    kept = list(filters)
    return lambda seen: all(each(seen) for each in kept)
