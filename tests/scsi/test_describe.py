"""CDBs and sense data as text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vscsihba.scsi import Asc, Sense, SenseKey, describe, describe_sense, status_name
from vscsihba.scsi.sense import FieldPointer

REFUSAL = Sense(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB, specific=FieldPointer(1, 7))


@pytest.mark.parametrize(
    ("cdb", "words"),
    [
        ("28 00 00000800 00 0008 00", ("READ(10)", "lba=2048 blocks=8")),
        ("2a 08 00000000 00 0001 00", ("WRITE(10)", "fua lba=0 blocks=1")),
        ("12 01 80 00ff 00", ("INQUIRY", "evpd page_code=0x80 allocation_length=255")),
        ("9e 10 0000000000000000 00000020 00 00", ("READ CAPACITY(16)", "allocation_length=32")),
        ("00 00 00 00 00 00", ("TEST UNIT READY", "")),
        ("28 00", ("READ(10)", "lba=0 blocks=0")),
        ("ff 01 02", ("opcode FFh", "01 02")),
        ("", ("no CDB", "")),
    ],
)
def test_describe_cdb(cdb: str, words: tuple[str, str]) -> None:
    assert describe(bytes.fromhex(cdb)) == words


@pytest.mark.parametrize("descriptor", [False, True])
def test_describe_sense_in_both_formats(descriptor: bool) -> None:
    words = "ILLEGAL REQUEST, INVALID FIELD IN CDB, CDB byte 1 bit 7"
    assert describe_sense(REFUSAL.encode(descriptor=descriptor)) == words


def test_describe_sense_of_an_earlier_command() -> None:
    sense = Sense(SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR, deferred=True)
    assert describe_sense(sense.encode()) == "deferred, MEDIUM ERROR, WRITE ERROR"


def test_describe_sense_unknown_code() -> None:
    assert describe_sense(bytes.fromhex("70000c00000000 0a00000000 9977 00000000")) == (
        "sense key Ch, ASC 99h ASCQ 77h"
    )


def test_describe_status() -> None:
    assert status_name(2) == "CHECK CONDITION"
    assert status_name(0x99) == "status 99h"


@given(st.binary(max_size=40))
@settings(deadline=None)
def test_describe_any_bytes(data: bytes) -> None:
    assert all(isinstance(word, str) for word in describe(data))
    assert isinstance(describe_sense(data), str)


def test_asc_words_differ_and_are_upper_case() -> None:
    words = [code.words for code in Asc]
    assert len(set(words)) == len(words)
    assert all(word == word.upper() for word in words)
