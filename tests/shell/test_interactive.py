"""The shell as a program: in a terminal, in a pipe, and for one command."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.fake import FakeService
from tests.terminal import Terminal

TOP = Path(__file__).parents[2]

PROGRAM = """
import sys
from pathlib import Path
from vscsihba.daemon import calls
calls.SOCKET = Path(sys.argv.pop(1))
from vscsihba.cli.main import main
sys.exit(main())
"""


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(folder / "control.sock"), *words]


def environment(folder: Path) -> dict[str, str]:
    found = {
        **os.environ,
        "PYTHONPATH": str(TOP),
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    found.pop("NO_COLOR", None)
    return found


def run(folder: Path, *words: str, script: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *words),
        input=script,
        capture_output=True,
        text=True,
        env=environment(folder),
        check=False,
        timeout=120,
    )


@pytest.fixture
def terminal(service: FakeService, tmp_path: Path) -> Iterator[Terminal]:
    with Terminal(command(tmp_path, "shell"), environment(tmp_path)) as found:
        found.wait_for("^/> $")
        yield found


def test_a_person_makes_a_disk(terminal: Terminal, service: FakeService) -> None:
    terminal.send("/backstores/mem\tcreate d1 si\t1G\t\n")
    terminal.wait_for(r"\+ add backstore d1: memory 1GiB")
    terminal.send("cd /hbas\n")
    terminal.wait_for("^/hbas> ")
    terminal.send("create\n")
    terminal.wait_for("add HBA 0")
    terminal.send("hba0/ create d1\n")
    terminal.wait_for("add LUN 0 of HBA 0: d1")
    terminal.send("ls\n")
    terminal.wait_for(r"o- lun0 \.+ \[/dev/sda, 1.0 GiB, d1, running\]")
    assert terminal.coloured
    assert service.running.place_of("d1") == (0, 0)
    terminal.send("exit\n")
    terminal.wait_for("not saved: to keep the changes for the next start")
    assert terminal.end() == 0


def test_an_error_is_one_line_and_the_session_goes_on(terminal: Terminal) -> None:
    terminal.send("/hbas delete 3\n")
    shown = terminal.wait_for('error: there is no hba3; see "ls /"\n/> $')
    assert "Traceback" not in shown
    terminal.send("pwd\n")
    terminal.wait_for("^/$")


def test_many_completions_are_shown_in_columns_and_the_line_again(terminal: Terminal) -> None:
    terminal.send("/backstores/\t\t")
    terminal.wait_for(r"cache/ +corrupt/ +cow/")
    terminal.wait_for(r"^/> /backstores/$")
    terminal.send("file ls\n")
    terminal.wait_for("o- file")


def test_ctrl_c_drops_the_line_and_ctrl_d_leaves(terminal: Terminal) -> None:
    terminal.send("clearconfig confirm=true")
    terminal.wait_for("clearconfig confirm=true$")
    # CPython delays the exception of a signal to the next key unless its readline waits for one
    # (Modules/readline.c, readline_until_enter_or_signal), which begins after the last letter is shown.
    time.sleep(1.0)
    terminal.send("\x03")
    terminal.wait_for(r"\^C\n/> $")
    terminal.send("\x04")
    terminal.wait_for("^/> exit$|^exit$")
    assert terminal.end() == 0


def test_lines_are_remembered(service: FakeService, tmp_path: Path) -> None:
    for keys, seen in (("/hbas ls\n", "0 HBAs"), ("\x1b[A\x1b[A\n", "0 HBAs")):
        with Terminal(command(tmp_path, "shell"), environment(tmp_path)) as terminal:
            terminal.wait_for("^/> $")
            terminal.send(keys)
            terminal.wait_for(seen)
            terminal.send("exit\n")
            assert terminal.end() == 0
    assert (tmp_path / "state/vscsihba/history").stat().st_mode & 0o077 == 0


def test_a_script_stops_at_the_first_error_with_its_code(service: FakeService, tmp_path: Path) -> None:
    done = run(tmp_path, "shell", script="/hbas create 1\n/hbas create 1\n/hbas create 2\n")
    assert done.stdout == "+ add HBA 1\n"
    assert done.stderr == "vscsihba: line 2: hba1 already exists; choose another number\n"
    assert done.returncode == 2
    assert [hba.id for hba in service.running.hbas] == [1]


def test_one_command(service: FakeService, tmp_path: Path) -> None:
    done = run(
        tmp_path, "shell", "/backstores/file", "create", "name=d1", "path=/srv/my disk.img", "size=1GiB"
    )
    assert (done.returncode, done.stdout) == (0, "+ add backstore d1: file /srv/my disk.img 1GiB\n")
    done = run(tmp_path, "shell", "/backstores/file", "create", "name=d1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_output_to_a_pipe_has_no_colours(service: FakeService, tmp_path: Path) -> None:
    run(tmp_path, "shell", "/hbas", "create")
    done = run(tmp_path, "shell", "ls")
    assert "\x1b" not in done.stdout
    assert "o- hba0 ." in done.stdout


def test_without_a_service_it_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "shell", "ls")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("vscsihba: the service is not running; start it: ")
    assert done.stderr.count("\n") == 1
