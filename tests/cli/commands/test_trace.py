"""``vscsihba trace``: with an engine in this process."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.engine.rig import Rig
from tests.polling import wait_until
from vscsihba.capture import feed as feed_module
from vscsihba.capture.saved import saved_commands
from vscsihba.cli import extcap
from vscsihba.cli.commands import trace
from vscsihba.control import ControlServer
from vscsihba.engine.trace_stream import trace_stream
from vscsihba.errors import HostError, UsageError

NOBODY: Final[dict[str, Any]] = (
    {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
)
"""Arguments of ``subprocess.run``: Wireshark does not take the extcap folder from root."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig({"handler": "memory", "size": "1MiB"}) as made:
        for _ in range(4):
            made.run(bytes(6))
        yield made


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Look for engines in a directory of the test; put the handlers of signals back afterwards."""
    assert feed_module.Feed.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(feed_module.Feed.__init__.__kwdefaults__, "run", tmp_path / "run")
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield tmp_path / "run"
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def engine(run_directory: Path, rig: Rig) -> Iterator[Path]:
    """Serve the traces of the rig as an engine of HBA 0."""
    path = run_directory / "hba0" / "engine-1.control"
    verbs = {"trace": partial(trace_stream, rig.taps, 0)}
    with ControlServer(path, verbs, allowed=lambda peer: peer.uid == os.getuid()):
        yield path


def while_running(rig: Rig, *arguments: str, act: Callable[[], object]) -> int:
    """Run the command; `act` sends commands as soon as it observes them."""

    def watch() -> None:
        wait_until(lambda: bool(rig.served.tap.observers))
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        return trace.run(arguments)
    finally:
        thread.join()


def reads(rig: Rig, count: int) -> None:
    for lba in range(count):
        rig.read(lba, 1)


def test_commands_are_printed(engine: Path, rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    assert while_running(rig, "hba0/lun0", "--count", "3", act=partial(reads, rig, 3)) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["TIME", "LUN", "TAG", "BYTES", "MS", "COMMAND"]
    assert [line.split("  ")[-1] for line in lines] == [f"READ(10) lba={lba} blocks=1" for lba in range(3)]


def test_filters_choose_and_count(engine: Path, rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        reads(rig, 5)
        rig.read(1 << 20, 1)

    assert while_running(rig, "--errors", "--opcode", "READ", "--count=1", "--json", act=act) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["status"] == "CHECK CONDITION"


def test_a_capture_is_written(
    engine: Path, rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "disk.pcapng"
    assert while_running(rig, "--pcap", str(path), "--count=4", act=partial(reads, rig, 4)) == 0
    assert capsys.readouterr().out == f"{path}: 4 commands\n"
    assert len(list(saved_commands(path))) == 4
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [len(found.data) for found in saved_commands(path)] == [128] * 4


def test_a_full_disk_ends_the_capture_and_not_the_disk(engine: Path, rig: Rig) -> None:
    with pytest.raises(HostError, match=r"^/dev/full: No space left on device$"):
        trace.run(["--pcap", "/dev/full"])
    assert rig.read(0, 1).status == 0
    wait_until(lambda: not rig.served.tap.observers)


def test_lost_commands_are_told(engine: Path, rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        reads(rig, 400)
        while rig.served.tap.observers:
            rig.read(0, 1)

    while_running(rig, "--buffer=4KiB", "--snaplen=512", "--count=30", act=act)
    output = capsys.readouterr().out
    assert "commands lost: this trace was too slow)" in output


def test_ten_readers_get_everything(engine: Path, rig: Rig, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from vscsihba.capture import feed;"
        "feed.Feed.__init__.__kwdefaults__['run'] = Path(sys.argv[1]);"
        "from vscsihba.cli.commands import trace; sys.exit(trace.run(sys.argv[2:]))"
    )
    words = [sys.executable, "-c", program, str(engine.parent.parent), "--count=50", "--json"]
    readers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(10)]
    wait_until(lambda: rig.taps.count == 10)
    readers[0].kill()
    reads(rig, 50)
    outputs = [reader.communicate(timeout=60)[0] for reader in readers]
    assert [len(output.splitlines()) for output in outputs[1:]] == [50] * 9
    wait_until(lambda: rig.taps.count == 0)


def test_a_lun_that_nobody_serves(engine: Path) -> None:
    with pytest.raises(HostError, match="no engine serves LUN 5 of HBA 0"):
        trace.run(["hba0/lun5"])


def test_no_engine_at_all() -> None:
    with pytest.raises(HostError, match='no engine serves a disk; see "vscsihba status"'):
        trace.run([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "is not a number of commands"),
        (["--ring", "10x64MiB"], "--ring needs --pcap FILE"),
        (["--ring", "64MiB", "--pcap", "x"], "is not a ring of files"),
        (["--snaplen", "long"], "'long' is not a size"),
        (["--buffer", "1"], "is not a size from 4KiB to 1GiB"),
        (["--opcode", "RAED"], "no command is named 'RAED'"),
        (["--lba", "x"], "is not a range of blocks"),
        (["--slower", "5"], "is not a duration"),
        (["/srv/x"], "is not a disk"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        trace.run(arguments)
    assert "\n" not in str(refused.value)


def test_the_questions_of_wireshark_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert trace.run(["--extcap-interfaces", "--extcap-version=4.0"]) == 0
    assert "interface {value=vscsihba}" in capsys.readouterr().out
    assert trace.run(["--extcap-dlts", "--extcap-interface", "vscsihba"]) == 0
    assert "{number=252}" in capsys.readouterr().out
    assert trace.run(["--extcap-config", "--extcap-interface", "vscsihba"]) == 0
    assert capsys.readouterr().out.count("arg {number=") == 2
    asked = [
        "--capture",
        "--extcap-interface",
        "vscsihba",
        "--fifo",
        "/tmp/x",
        "--disks",
        "hba0/lun1 hba0/lun2",
    ]
    assert extcap.trace_arguments(asked) == [
        "--pcap", "/tmp/x", "--snaplen", "4096", "--follow", "hba0/lun1", "hba0/lun2",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="not a question of Wireshark"):
        trace.run(["--extcap-interface", "vscsihba"])


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_wireshark_lists_the_interface() -> None:
    program = Path(sys.executable).parent / "vscsihba"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        script = extcap.install(str(program), Path(folder))
        assert os.access(script, os.X_OK)
        listed = subprocess.run(
            ["tshark", "-D"],
            env=os.environ | {"WIRESHARK_EXTCAP_DIR": folder, "HOME": folder},
            **NOBODY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "vscsihba (SCSI commands of virtual disks)" in listed.stdout


def test_a_script_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="Not a directory"):
        extcap.install("vscsihba", tmp_path / "file" / "extcap")


def test_commands_until_the_signal_are_in_the_capture(engine: Path, rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "disk.pcapng"

    def act() -> None:
        reads(rig, 2000)
        os.kill(os.getpid(), signal.SIGINT)

    assert while_running(rig, "--pcap", str(path), "--snaplen", "all", act=act) == 0
    assert len(list(saved_commands(path))) == 2000
