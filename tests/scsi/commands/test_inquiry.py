"""INQUIRY and the vital product data pages."""

import struct

import pytest

from tests.scsi.disk import Disk, invalid_field
from vscsihba.block import Capabilities
from vscsihba.scsi.vpd import PAGES


def vpd(disk: Disk, code: int) -> bytes:
    answer = disk.run(bytes([0x12, 1, code, 2, 0, 0]))
    assert answer.good
    assert answer.data[1] == code
    assert int.from_bytes(answer.data[2:4], "big") == len(answer.data) - 4
    return answer.data[4:]


def test_inquiry_standard_data() -> None:
    data = Disk().run("12 00 00 00ff 00").data
    assert len(data) == 96 == data[4] + 5
    assert data[:8] == bytes.fromhex("00 00 06 12 5b 08 00 02")
    assert data[8:36] == b"VSCSIHBAVIRTUAL DISK    0001"


@pytest.mark.parametrize("lun", range(8))
def test_inquiry_with_the_lun_of_scsi_2(lun: int) -> None:
    """SCSI-2 has the LUN in the CDB, and Linux sends it so before it knows the version of a target."""
    assert Disk().run(bytes([0x12, lun << 5, 0, 0, 0xFF, 0])).data[:4] == bytes.fromhex("00 00 06 12")


@pytest.mark.parametrize("bit", range(1, 5))
def test_inquiry_with_a_reserved_bit_is_refused(bit: int) -> None:
    assert invalid_field(Disk().run(bytes([0x12, 1 << bit, 0, 0, 0xFF, 0]))) == (1, bit)


def test_inquiry_version_descriptors() -> None:
    data = Disk().run("12 00 00 00ff 00").data
    descriptors = struct.unpack_from(">8H", data, 58)
    assert {0x0460, 0x04C0} <= set(descriptors), "SPC-4 and SBC-3"


def test_inquiry_removable() -> None:
    assert Disk(removable=True).run("12 00 00 00ff 00").data[1] == 0x80


def test_inquiry_page_code_without_evpd_is_refused() -> None:
    assert invalid_field(Disk().run("12 00 80 00ff 00")) == (2, None)


def test_inquiry_unknown_vpd_page_is_refused() -> None:
    assert invalid_field(Disk().run("12 01 99 00ff 00")) == (2, None)


@pytest.mark.parametrize("code", PAGES)
def test_vpd_page_is_listed_and_readable(code: int) -> None:
    disk = Disk()
    listed = vpd(disk, 0)
    assert code in listed
    assert list(listed) == sorted(listed)
    vpd(disk, code)


def test_vpd_names_are_the_identity() -> None:
    disk = Disk()
    identity = disk.lu.identity
    assert vpd(disk, 0x80) == identity.serial.encode()
    page = vpd(disk, 0x83)
    assert page[:12] == b"\x01\x03\x00\x08" + identity.naa
    assert b"VSCSIHBAVIRTUAL DISK    " + identity.serial.encode() in page
    assert b"naa." + identity.naa.hex().upper().encode() in page


def test_vpd_block_limits() -> None:
    page = vpd(Disk(max_transfer=1 << 20, physical_block_size=4096), 0xB0)
    assert len(page) == 0x3C
    assert struct.unpack_from(">HIII", page, 2) == (8, 2048, 0, 0)
    assert struct.unpack_from(">IIIIQ", page, 16) == (1 << 20, 256, 8, 0x80000000, 32768)


def test_vpd_block_limits_without_unmap() -> None:
    page = vpd(Disk(capabilities=Capabilities()), 0xB0)
    assert page[16:32] == bytes(16)


@pytest.mark.parametrize(("rotational", "rate"), [(False, 1), (True, 7200)])
def test_vpd_block_device_characteristics(rotational: bool, rate: int) -> None:
    page = vpd(Disk(capabilities=Capabilities(rotational=rotational)), 0xB1)
    assert int.from_bytes(page[:2], "big") == rate
    assert len(page) == 60
    assert page[4] == 0x0B, "RBWZ, FUAB, VBULS"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (Capabilities(), "00 00 00 00"),
        (Capabilities(unmap=True), "0b e0 02 00"),
        (Capabilities(unmap=True, unmap_zeroes=True), "0b e4 02 00"),
    ],
)
def test_vpd_logical_block_provisioning(capabilities: Capabilities, expected: str) -> None:
    assert vpd(Disk(capabilities=capabilities), 0xB2) == bytes.fromhex(expected)


def test_vpd_third_party_copy_descriptors() -> None:
    page = vpd(Disk(), 0x8F)
    descriptors, at = {}, 0
    while at < len(page):
        code, length = struct.unpack_from(">HH", page, at)
        assert length % 4 == 0
        descriptors[code] = page[at + 4 : at + 4 + length]
        at += 4 + length
    assert at == len(page)
    assert (
        list(descriptors)
        == sorted(descriptors)
        == [0x0000, 0x0001, 0x0004, 0x0008, 0x000C, 0x0106, 0x0108, 0x8001]
    )
    assert descriptors[0x0001].rstrip(b"\0") == bytes.fromhex("0a 83 03 00 10 11 84 03 00 03 07")
    assert [len(descriptors[code]) for code in (0x0000, 0x0004, 0x0106, 0x8001)] == [
        0x20,
        0x1C,
        0x2C + 0x30,
        0x20,
    ]
    assert struct.unpack_from(">2xH", descriptors[0x0108])[0] == len(descriptors[0x0108]) - 4 == 3 * 64
