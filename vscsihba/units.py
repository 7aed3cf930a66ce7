"""Units: bytes, blocks and the way people write sizes and numbers of things.

An LBA and a byte offset are both integers; the NewTypes keep a type checker from
letting one pass for the other.
"""

import re
from typing import NewType

from vscsihba.errors import UsageError

Lba = NewType("Lba", int)
"""A logical block address."""
Blocks = NewType("Blocks", int)
"""A number of logical blocks."""

_FACTORS: dict[str, int] = {"": 1, "B": 1}
for _power, _prefix in enumerate("KMGTPE", start=1):
    _FACTORS[_prefix] = _FACTORS[f"{_prefix}iB"] = 1 << 10 * _power
    _FACTORS[f"{_prefix}B"] = 1000**_power

_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,30})?)\s*([A-Za-z]*)", re.ASCII)


def parse_size(text: str) -> int:
    """Return the bytes that `text` means: ``"10GiB"``, ``"512M"``, ``"1.5TiB"``, ``"4096"``.

    A lone letter is binary (``M`` is MiB), as in ``truncate(1)`` and ``lvcreate(8)``.

    Raises:
        UsageError: `text` is no size, or no whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    factor = _FACTORS.get(_canonical(match[2])) if match else None
    if match is None or factor is None:
        raise UsageError(f"{text!r} is not a size", cure='write it like "512M", "10GiB" or "4096"')
    whole, _, fraction = match[1].partition(".")
    size, rest = divmod(int(whole + fraction) * factor, int("1" + "0" * len(fraction)))
    if rest:
        raise UsageError(f"{text!r} is not a whole number of bytes", cure="round it")
    return size


def _canonical(suffix: str) -> str:
    """Fold the case of a suffix: ``gib`` -> ``GiB``, ``mb`` -> ``MB``."""
    return suffix.upper().replace("IB", "iB")


def format_size(size: int) -> str:
    """Return `size` bytes as people read it: ``"64.0 MiB"``, ``"512 B"``."""
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, 6)
    scaled = size / 1024**power
    if scaled >= 1023.95 and power < 6:  # would be printed as 1024.0
        power += 1
        scaled /= 1024
    return f"{scaled:.1f} {'KMGTPE'[power - 1]}iB"


def counted(count: int, noun: str) -> str:
    """Return a number of things in words: ``"1 LUN"``, ``"2 LUNs"``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def exact_size(size: int) -> str | int:
    """Return `size` bytes as a document says it: in the largest unit that leaves no fraction.

    ``parse_size`` undoes it: ``"10GiB"``, ``"1536MiB"``; a number that is no whole KiB stays one.
    """
    power = next((power for power in range(6, 0, -1) if size and size % 1024**power == 0), 0)
    return f"{size // 1024**power}{'KMGTPE'[power - 1]}iB" if power else size
