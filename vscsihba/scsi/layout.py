"""Where the fields of a CDB lie, in a notation short enough for a table row.

A layout is a line of fields, ``name=FIRST-LAST``, in T10's numbering of bytes and
bits (bit 7 is the most significant):

    lba=2-5            bytes 2 to 5
    control=9          byte 9
    dpo=1.4            byte 1 bit 4
    rdprotect=1.7-1.5  byte 1 bits 7 to 5
    lba=1.4-3          byte 1 bit 4 to byte 3 bit 0

A field marked ``!`` must be zero, because its function is not offered; one marked
``~`` is accepted and ignored. What no field covers is reserved and must be zero.

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
        byte: The byte it begins in.
        bit: Its most significant bit in that byte.
        width: Bits.
        mark: ``!`` must be zero, ``~`` ignored, empty: evaluated.
    """

    name: str
    byte: int
    bit: int
    width: int
    mark: str

    @property
    def bit_pointer(self) -> int | None:
        """What a field pointer says of the bit; None if the field is whole bytes."""
        return None if self.bit == 7 and self.width % 8 == 0 else self.bit


class Layout:
    """The fields of a CDB of `length` bytes.

    Masks are integers over the whole CDB, its first byte the most significant.

    Attributes:
        length: Bytes of the CDB.
        fields: The fields by name.
        usage: Bits that are evaluated.
        refused: Bits that must be zero: reserved ones, and functions not offered.

    Raises:
        ValueError: `text` is no layout of that many bytes.
    """

    def __init__(self, text: str, length: int) -> None:
        self.length = length
        self.fields: dict[str, Field] = {}
        self.usage = 0
        ignored = 0
        for word in f"operation_code=0 {text}".split():
            field = _parse(word)
            mask = self.mask(field)
            if mask & (self.usage | ignored) or field.name in self.fields:
                raise ValueError(f"{word!r} overlaps another field of {text!r}")
            self.fields[field.name] = field
            if field.mark == "~":
                ignored |= mask
            elif not field.mark:
                self.usage |= mask
        self.refused = (1 << 8 * length) - 1 & ~(self.usage | ignored)

    def shift(self, field: Field) -> int:
        """Return how far left of the CDB's last bit the field ends."""
        return 8 * (self.length - field.byte - 1) + field.bit + 1 - field.width

    def mask(self, field: Field) -> int:
        """Return the field's bits.

        Raises:
            ValueError: The field lies outside the CDB.
        """
        shift = self.shift(field)
        if shift < 0:
            raise ValueError(f"{field.name} ends after byte {self.length - 1}")
        return (1 << field.width) - 1 << shift

    def with_value(self, whole: int, name: str, value: int) -> int:
        """Return a CDB in which a field has another value."""
        field = self.fields[name]
        return whole & ~self.mask(field) | value << self.shift(field)

    def first_refused(self, whole: int) -> tuple[int, int | None] | None:
        """Return byte and bit of the leftmost field or bit that should be zero and is not."""
        wrong = whole & self.refused
        if not wrong:
            return None
        position = 8 * self.length - wrong.bit_length()
        highest = 1 << wrong.bit_length() - 1
        for field in self.fields.values():
            if highest & self.mask(field):
                return field.byte, field.bit_pointer
        return position // 8, 7 - position % 8


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
