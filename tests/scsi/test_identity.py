"""Names that survive a restart."""

import pytest

from tests.scsi.disk import Disk
from vscsihba.errors import UsageError
from vscsihba.scsi import Identity


def test_identity_is_always_the_same() -> None:
    assert Identity.derive("a") == Identity.derive("a")


def test_identity_differs() -> None:
    one, other = Identity.derive("a"), Identity.derive("b")
    assert one.serial != other.serial
    assert one.naa != other.naa


def test_identity_naa_is_locally_assigned() -> None:
    naa = Identity.derive("a").naa
    assert len(naa) == 8
    assert naa[0] >> 4 == 3


def test_identity_serial_is_printable() -> None:
    assert Identity.derive("ä").serial.isalnum()


@pytest.mark.parametrize(
    "words",
    [{"vendor": "NINE CHAR"}, {"product": "x" * 17}, {"revision": "12345"}, {"vendor": ""}, {"vendor": "Ä"}],
)
def test_product_that_has_no_room_is_refused(words: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="printable ASCII"):
        Disk(**words)  # type: ignore[arg-type]


def test_product_words_fill_their_places() -> None:
    data = Disk(vendor="ACME", product="Thing", revision="7").run("12 00 00 00ff 00").data
    assert data[8:36] == b"ACME    Thing           7   "
    assert len(data) == 96


@pytest.mark.parametrize(
    ("serial", "naa"),
    [
        ("", b"0" * 8),
        ("x" * 201, b"0" * 8),
        ("x", b""),
        ("x", b"0" * 7),
        ("x", b"@" * 8),
        ("x", b"P" * 16),
        ("x", b"`" * 8),
    ],
)
def test_identity_that_no_page_can_carry_is_refused(serial: str, naa: bytes) -> None:
    with pytest.raises(UsageError):
        Identity(serial, naa)


@pytest.mark.parametrize("naa", ["2001020304050607", "5001405000000001", "6001405" + "0" * 24 + "1"])
def test_identity_takes_the_names_that_it_is_given(naa: str) -> None:
    disk = Disk(identity=Identity.derive("a", serial="S-1", naa=bytes.fromhex(naa)))
    length = len(naa) // 2
    page = disk.run("12 01 83 00ff 00").data
    assert page[4 : 8 + length] == bytes([1, 3, 0, length]) + bytes.fromhex(naa)
    assert f"naa.{naa.upper()}".encode() in page
    assert disk.run("12 01 80 00ff 00").data[4:] == b"S-1"


def test_identity_is_derived_where_nothing_is_given() -> None:
    assert Identity.derive("a", serial="S-1").naa == Identity.derive("a").naa
    assert Identity.derive("a", naa=b"P" * 8).serial == Identity.derive("a").serial
