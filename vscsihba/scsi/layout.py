"""Layouts of CDBs: the place of each field, in a notation short enough for a table row.

A layout is a line of fields, ``name=FIRST-LAST``, in T10's numbering of bytes and
bits (bit 7 is the most significant):

    lba=2-5            bytes 2 to 5
    control=9          byte 9
    dpo=1.4            byte 1 bit 4
    rdprotect=1.7-1.5  byte 1 bits 7 to 5
    lba=1.4-3          byte 1 bit 4 to byte 3 bit 0

A field marked ``!`` must be zero, because its function is not offered; one marked
``~`` is accepted and ignored. Bits outside of all fields are reserved and must be zero.

Knows bits and bytes, no command.
"""

import re
from dataclasses import dataclass

_FIELD = re.compile(r"(\w+)=(\d+)(?:\.(\d))?(?:-(\d+)(?:\.(\d))?)?([!~]?)")


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Attributes:
        name: Its name, T10's in lower case.
        byte: Its first byte.
        bit: Its most significant bit in that byte.
        width: Number of bits.
        mark: ``!`` must be zero, ``~`` ignored, empty: evaluated.
    """

    name: str
    byte: int
    bit: int
    width: int
    mark: str

    @property
    def bit_pointer(self) -> int | None:
        """The bit of a field pointer; None if the field is whole bytes."""
        return None if self.bit == 7 and self.width % 8 == 0 else self.bit


class Layout:
    """The fields of a CDB of `length` bytes.

    Masks are integers over the whole CDB, its first byte the most significant.

    Attributes:
        length: Bytes of the CDB.
        fields: The fields by name.
        usage: Bits that are evaluated.
        reserved: Bits that must be zero: reserved ones, and functions not offered.
        places: Of each field, the bits to its right and the mask of its value, by name.

    Raises:
        ValueError: `text` is not a layout of `length` bytes.
    """

    def __init__(self, text: str, length: int) -> None:
        self.length = length
        self.fields: dict[str, Field] = {}
        self.places: dict[str, tuple[int, int]] = {}
        self.usage = 0
        ignored = 0
        for word in f"operation_code=0 {text}".split():
            field = _parse(word)
            shift = 8 * (length - field.byte - 1) + field.bit + 1 - field.width
            if shift < 0:
                raise ValueError(f"{word!r} ends after byte {length - 1}")
            ones = (1 << field.width) - 1
            mask = ones << shift
            if mask & (self.usage | ignored) or field.name in self.fields:
                raise ValueError(f"{word!r} overlaps another field of {text!r}")
            self.fields[field.name] = field
            self.places[field.name] = shift, ones
            if field.mark == "~":
                ignored |= mask
            elif not field.mark:
                self.usage |= mask
        self.reserved = (1 << 8 * length) - 1 & ~(self.usage | ignored)

    def mask(self, name: str) -> int:
        """Return a field's bits."""
        shift, ones = self.places[name]
        return ones << shift

    def with_value(self, whole: int, name: str, value: int) -> int:
        """Return a CDB in which a field has another value."""
        return whole & ~self.mask(name) | value << self.places[name][0]

    def owner(self, bit: int) -> Field | None:
        """Return the field that a bit of the CDB belongs to (0 is the last bit), None if it is reserved."""
        return next((field for name, field in self.fields.items() if self.mask(name) >> bit & 1), None)

    def first_reserved(self, whole: int) -> tuple[int, int | None] | None:
        """Return byte and bit of the leftmost field or bit of a CDB that should be zero and is not."""
        wrong = whole & self.reserved
        if not wrong:
            return None
        bit = wrong.bit_length() - 1
        field = self.owner(bit)
        return (field.byte, field.bit_pointer) if field else (self.length - 1 - bit // 8, bit % 8)


def _parse(word: str) -> Field:
    match = _FIELD.fullmatch(word)
    if match is None:
        raise ValueError(f"{word!r} is not a field")
    name, first, msb, last, lsb, mark = match.groups()
    byte, bit = int(first), int(msb or 7)
    if last is None:
        last, lsb = first, msb or 0
    width = 8 * (int(last) - byte) + bit + 1 - int(lsb or 0)
    if width < 1:
        raise ValueError(f"{word!r} ends before it begins")
    return Field(name, byte, bit, width, mark)
