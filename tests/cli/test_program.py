"""The frame around every command: one line and an exit code, whatever happens."""

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from vscsihba.cli.program import HelpFormatter, Main, Parser, run
from vscsihba.errors import HostError, UsageError


def failing(error: BaseException) -> Main:
    def command(_arguments: Sequence[str]) -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("no such thing", cure="look again"), 2, "prog: no such thing; look again\n"),
        (HostError("the machine refused"), 1, "prog: the machine refused\n"),
        (FileNotFoundError(2, "No such file or directory", "/a"), 1, "prog: /a: No such file or directory\n"),
        (OSError("odd"), 1, "prog: system call: odd\n"),
        (KeyboardInterrupt(), 130, "prog: interrupted\n"),
        (KeyboardInterrupt("it may continue"), 130, "prog: interrupted; it may continue\n"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("prog", failing(error), []) == code
    assert capsys.readouterr() == ("", line)


def test_a_result_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prog", len, ["a", "b", "c"]) == 3
    assert capsys.readouterr() == ("", "")


def test_warnings_reach_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    def command(_arguments: Sequence[str]) -> int:
        logging.getLogger("vscsihba.engine").warning("lun 0: odd")
        return 0

    run("prog", command, [])
    assert capsys.readouterr().err == "prog: WARNING: lun 0: odd\n"


def test_a_parser_refuses_in_one_line() -> None:
    with pytest.raises(UsageError, match=r'unrecognized arguments: x; see "prog --help"'):
        Parser(prog="prog").parse_args(["x"])


def test_help_fits_the_terminal_and_keeps_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "42")
    example = "examples:\n  prog a      a line that is longer than the terminal\n\n"
    epilog = f"{example}One sentence that is\nlonger. Then.\nLast.\n"
    help_text = Parser(prog="prog", epilog=epilog, formatter_class=HelpFormatter).format_help()
    assert help_text.endswith(f"\n{example}One sentence that is longer. Then.\nLast.\n")


def test_output_that_cannot_be_written_is_one_line() -> None:
    """And is not tried again when the interpreter ends."""
    for command in ("apply --help", "schema", "encrypt keys /nowhere"):
        for streams in (">/dev/full", ">/dev/full 2>/dev/full", "| true"):
            _told_in_one_line(command, streams)


COMMANDS_WITHOUT_A_SERVICE = (
    "--help", "--version", "schema", "handlers", "handlers file", "completion bash", "encrypt keys /nowhere",
    "cow info /nowhere", "apply -", "apply /nowhere", "shell ls", "shell", "status --json", "show",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS_WITHOUT_A_SERVICE)
def test_streams_that_are_closed(command: str, tmp_path: Path) -> None:
    for streams in (">&-", "<&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"):
        _told_in_one_line(command, streams)


@pytest.mark.parametrize("streams", [">&-", "<&-", "2>&-"])
def test_vscsitarget_with_streams_that_are_closed(streams: str) -> None:
    for words in ("--help", "id=0", "id=0 -files /nowhere/disk"):
        _told_in_one_line(words, streams, program="vscsitarget")


def test_a_file_does_not_become_a_closed_stream(tmp_path: Path) -> None:
    """A disk that got the number of standard output would have output written into it."""
    code = (
        "import os, sys; from vscsihba.cli.program import run; "
        f"run('prog', lambda _: os.open({str(tmp_path / 'disk')!r}, os.O_RDWR | os.O_CREAT), []); "
        "print('output'); sys.stdout.flush(); print('error', file=sys.stderr)"
    )
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$1" <&- >&- 2>&-', "bash", code], check=False, cwd=Path.cwd()
    )
    assert done.returncode == 0
    assert (tmp_path / "disk").read_bytes() == b""


def _told_in_one_line(words: str, streams: str, *, program: str = "vscsihba") -> None:
    module = "main" if program == "vscsihba" else program
    main = f"import sys; from vscsihba.cli.{module} import main; sys.exit(main())"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$0" {words} {streams}', main],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said, (words, streams, said)
    assert "Exception ignored" not in said, (words, streams, said)
    assert done.returncode in (0, 1, 2), (words, streams, done.returncode)
