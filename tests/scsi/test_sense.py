"""Sense data, byte by byte."""

import pytest

from vscsihba.scsi import Asc, Sense, SenseKey
from vscsihba.scsi.sense import FieldPointer, ProgressIndication

LOST = Sense(SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR, information=0x12345678)


def test_fixed_format_layout() -> None:
    sense = LOST.encode()
    assert sense == bytes.fromhex("f0 00 03 12345678 0a 00000000 1100 00 000000")


def test_descriptor_format_layout() -> None:
    sense = LOST.encode(descriptor=True)
    assert sense == bytes.fromhex("72 03 1100 000000 0c  00 0a 80 00 0000000012345678")


def test_fixed_format_leaves_out_information_over_32_bits() -> None:
    sense = Sense(SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR, information=1 << 32).encode()
    assert sense[0] == 0x70
    assert sense[3:7] == bytes(4)


def test_descriptor_format_holds_information_over_32_bits() -> None:
    sense = Sense(SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR, information=1 << 40).encode(descriptor=True)
    assert int.from_bytes(sense[12:20], "big") == 1 << 40


@pytest.mark.parametrize(("descriptor", "code"), [(False, 0x71), (True, 0x73)])
def test_deferred_error_has_its_own_response_code(descriptor: bool, code: int) -> None:
    sense = Sense(SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR, deferred=True).encode(descriptor=descriptor)
    assert sense[0] == code


@pytest.mark.parametrize(
    ("pointer", "encoded"),
    [
        (FieldPointer(2), "c0 0002"),
        (FieldPointer(1, 4), "cc 0001"),
        (FieldPointer(0x123, 0, in_cdb=False), "88 0123"),
        (ProgressIndication(0x8000), "80 8000"),
    ],
)
def test_sense_key_specific_bytes(pointer: FieldPointer | ProgressIndication, encoded: str) -> None:
    sense = Sense(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB, specific=pointer)
    assert sense.encode()[15:18] == bytes.fromhex(encoded)
    assert sense.encode(descriptor=True)[8:] == bytes.fromhex("02060000" + encoded + "00")
