"""Names that survive a restart."""

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
