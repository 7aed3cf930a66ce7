import os
import signal
import sys
import time
from pathlib import Path

import pytest

from vagrant.runner import process
from vagrant.runner.workdir import WorkDir

Written = list[tuple[int, bytes]]


def run(work: WorkDir, script: str, limit: float | None = None) -> Written:
    """Run a Python script instead of virtme-run and return its output by descriptor."""
    written: Written = []
    command = [sys.executable, "-c", script]
    process.run_streaming(command, work, limit, lambda fd, data: written.append((fd, data)))
    return written


@pytest.fixture
def work(tmp_path: Path) -> object:
    with WorkDir(tmp_path) as made:
        yield made


def test_both_outputs_are_passed_on(work: WorkDir) -> None:
    written = run(work, "import os; os.write(1, b'out'); os.write(2, b'err')")
    assert sorted(written) == [(1, b"out"), (2, b"err")]


def test_output_comes_as_it_is_written(work: WorkDir) -> None:
    """The child ends only after its first output has arrived here."""
    arrived = work.path / "arrived"
    os.mkfifo(arrived)
    script = f"import os; os.write(1, b'a'); os.write(1, open({str(arrived)!r}, 'rb').read())"
    written: list[bytes] = []

    def take(_fd: int, data: bytes) -> None:
        written.append(data)
        if data == b"a":
            arrived.write_bytes(b"b")

    process.run_streaming([sys.executable, "-c", script], work, 30, take)
    assert written == [b"a", b"b"]


def test_temporary_files_go_into_the_runs_folder(work: WorkDir) -> None:
    written = run(work, "import tempfile; print(tempfile.mkstemp()[1], end='')")
    assert Path(written[0][1].decode()).parent == work.path


def test_the_time_limit_ends_the_run(work: WorkDir) -> None:
    started = time.monotonic()
    with pytest.raises(process.TimeLimitError):
        run(work, "import time; time.sleep(100)", limit=0.5)
    assert time.monotonic() - started < 20


def test_the_end_reaches_qemu_first(work: WorkDir) -> None:
    script = (
        "import os, pathlib, subprocess\n"
        "child = subprocess.Popen(['sleep', '100'])\n"
        f"pathlib.Path({str(work.pidfile)!r}).write_text(str(child.pid))\n"
        "os.write(1, b'up'); os.write(1, b'child ended by %d' % -child.wait())"
    )
    with pytest.raises(process.TimeLimitError):
        run(work, script, limit=3)
    with pytest.raises(ProcessLookupError):
        os.kill(int(work.pidfile.read_text()), 0)


def test_a_signal_ends_the_run_and_a_second_changes_nothing(work: WorkDir) -> None:
    def stop_us(_fd: int, _data: bytes) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    command = [sys.executable, "-c", "import os, time; os.write(1, b'up'); time.sleep(100)"]
    with pytest.raises(process.StoppedError) as stopped, process.stop_signals_raise():
        process.run_streaming(command, work, None, stop_us)
    assert stopped.value.number in {signal.SIGTERM, signal.SIGINT}


def test_the_callers_signal_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in process.STOP_SIGNALS]
    with process.stop_signals_raise():
        pass
    assert [signal.getsignal(number) for number in process.STOP_SIGNALS] == before
