"""The record of a last flush: written before it, removed after it, and read by the next owner."""

from pathlib import Path

import pytest

from vscsihba.engine.owning.flush_record import FlushRecord
from vscsihba.errors import FlushError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lun0.unflushed"


@pytest.fixture
def record(path: Path) -> FlushRecord:
    return FlushRecord(0, path)


def fail(record: FlushRecord, error: Exception) -> None:
    """End the flush with an error."""
    record.end(type(error), error, None)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, None), ("it broke\n", "it broke"), ("", "an unknown reason")]
)
def test_the_record_of_the_last_owner_is_read(
    record: FlushRecord, path: Path, content: str | None, reason: str | None
) -> None:
    if content is not None:
        path.write_text(content)
    record.load()
    assert record.reason == reason


def test_a_flush_is_recorded_while_it_runs(record: FlushRecord, path: Path) -> None:
    record.serve()
    record.begin()
    assert "ended during its last flush" in path.read_text()
    record.end(None, None, None)
    assert not path.exists()


def test_an_owner_that_has_served_nobody_records_no_flush(record: FlushRecord, path: Path) -> None:
    record.begin()
    assert not path.exists()
    record.end(None, None, None)
    fail(record, OSError(5, "Input/output error"))
    assert not path.exists()
    assert record.reason is None


def test_a_flush_that_fails_before_anything_is_served_is_recorded(record: FlushRecord, path: Path) -> None:
    """It may have lost what a killed owner had acknowledged."""
    fail(record, FlushError(5, "the disk is gone"))
    assert "failed while the storage was opened: " in path.read_text()


def test_a_last_flush_that_fails_is_recorded(
    record: FlushRecord, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record.serve()
    record.begin()
    fail(record, OSError(5, "Input/output error"))
    assert path.read_text().endswith("failed: [Errno 5] Input/output error\n")
    assert record.reason == path.read_text().strip()
    assert "lun 0: acknowledged data may be lost: the last flush" in caplog.text


def test_an_older_record_stays_until_initiators_know(record: FlushRecord, path: Path) -> None:
    path.write_text("it broke\n")
    record.load()
    record.serve()
    record.begin()
    assert path.read_text() == "it broke\n"
    record.end(None, None, None)
    assert path.read_text() == "it broke\n"
    record.forget()
    assert record.reason is None
    assert not path.exists()


def test_after_its_end_an_owner_has_served_nobody(record: FlushRecord, path: Path) -> None:
    record.serve()
    record.end(None, None, None)
    fail(record, OSError(2, "No such file"))
    assert not path.exists()


def test_nothing_to_remove_is_no_error(record: FlushRecord, caplog: pytest.LogCaptureFixture) -> None:
    record.forget()
    assert caplog.text == ""


def test_a_record_that_cannot_be_written_or_removed_is_logged(
    record: FlushRecord, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir()
    record.write("it broke")
    assert record.reason == "it broke"
    record.forget()
    assert caplog.text.count(f"{path}: Is a directory") == 2
