"""The line of a trace for one command."""

from vscsihba.trace import TraceRecord


def record(*, detail: str = "", sense: str = "", status: str = "GOOD") -> TraceRecord:
    return TraceRecord(
        lun=3,
        name="READ(10)",
        cdb=bytes(10),
        detail=detail,
        status=status,
        sense=sense,
        length=4096,
        seconds=0.0012345,
    )


def test_line_of_a_good_command() -> None:
    assert str(record(detail="lba=2048 blocks=8")) == "lun=3 READ(10) lba=2048 blocks=8 GOOD 1.234 ms"


def test_line_of_a_failed_command() -> None:
    line = str(record(detail="lba=1 blocks=1", status="CHECK CONDITION", sense="MEDIUM ERROR"))
    assert line == "lun=3 READ(10) lba=1 blocks=1 CHECK CONDITION MEDIUM ERROR 1.234 ms"


def test_line_without_detail_has_no_gap() -> None:
    assert str(record()) == "lun=3 READ(10) GOOD 1.234 ms"
