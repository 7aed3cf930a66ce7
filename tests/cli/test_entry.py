"""The frame around every command: one line and an exit code, whatever happens."""

import logging
from collections.abc import Sequence

import pytest

from vscsihba.cli.entry import Command, Parser, run
from vscsihba.errors import HostError, UsageError


def failing(error: BaseException) -> Command:
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
