"""Completion: the words are the parsers', and the real shells offer them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.fake import FakeService
from tests.terminal import Terminal
from vscsihba.cli.command_table import COMMANDS
from vscsihba.cli.commands import completion
from vscsihba.cli.completion import bash, fish
from vscsihba.cli.completion import zsh as zsh_completion
from vscsihba.cli.completion.syntax import Option, Syntax, Value, syntax_of
from vscsihba.cli.main import main
from vscsihba.cli.program import Parser
from vscsihba.config.load import read

TOP = Path(__file__).parents[3]


def made_up() -> Syntax:
    """A program that has everything that a parser can have, with the name of ours."""
    parser = Parser(prog="vscsihba", add_help=False)
    commands = parser.add_subparsers()
    apply = commands.add_parser("apply", help="make it so", add_help=False)
    apply.add_argument("file", metavar="FILE")
    apply.add_argument("--prune", choices=("named", "all"), help="what [else] is: removed")
    apply.add_argument("-f", "--force", action="store_true", help="don't ask")
    apply.add_argument("--secret", help="==SUPPRESS==")
    resize = commands.add_parser("resize", help="grow a disk", add_help=False)
    resize.add_argument("backstore", metavar="BACKSTORE")
    resize.add_argument("size", metavar="SIZE")
    snapshot = commands.add_parser("snapshot", help="freeze", add_help=False)
    snapshots = snapshot.add_subparsers()
    snapshots.add_parser("take", help="make one", add_help=False).add_argument("--name")
    snapshots.add_parser("drop-all", help="remove", add_help=False)
    return syntax_of(parser, "")


def test_syntax_is_what_the_parser_takes() -> None:
    found = made_up()
    assert list(found.commands) == ["apply", "resize", "snapshot"]
    assert found.commands["apply"] == Syntax(
        "make it so",
        (
            Option(("--prune",), "what [else] is: removed", Value("prune", "choice", ("named", "all"))),
            Option(("-f", "--force"), "don't ask", None),
        ),
        (Value("FILE", "file"),),
    )
    assert found.commands["resize"].values == (Value("BACKSTORE", "backstore"), Value("SIZE", "anything"))
    assert found.commands["snapshot"].commands["drop-all"] == Syntax("remove")


def test_the_whole_program_is_known() -> None:
    whole = completion.whole()
    assert list(whole.commands) == list(COMMANDS)
    assert all(
        any("--json" in option.flags for option in syntax.options) or syntax.commands
        for syntax in whole.commands.values()
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_accepted_by_it(
    shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    need(shell)
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion"]) == 2
    assert capsys.readouterr().err == "vscsihba: no shell is given; use bash, zsh, fish\n"


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs the program {program}: install the package {program}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file to complete, and a vscsihba that knows two backstores."""
    (tmp_path / "wanted.json").touch()
    program = tmp_path / "bin/vscsihba"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n[ \"$*\" = 'completion --backstores' ] && printf 'vault\\nboot\\n'\n")
    program.chmod(0o755)
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
    }


CASES = [
    ("vscsihba a", {"apply"}),
    ("vscsihba apply --", {"--prune", "--force"}),
    ("vscsihba apply --prune ", {"named", "all"}),
    ("vscsihba apply wan", {"wanted.json"}),
    ("vscsihba resize v", {"vault"}),
    ("vscsihba snapshot t", {"take"}),
    ("vscsihba snapshot take --n", {"--name"}),
]
IDS = [line for line, _ in CASES]


@pytest.mark.parametrize(("line", "offered"), CASES, ids=IDS)
def test_bash_offers_the_words(line: str, offered: set[str], folder: Path) -> None:
    (folder / "script").write_text(bash.script(made_up()))
    words = line.split(" ")
    program = (
        f"source ./script; COMP_WORDS=({' '.join(repr(word) for word in words)}); "
        f"COMP_CWORD={len(words) - 1}; _vscsihba; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(
        ["bash", "-c", program],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize(("line", "offered"), CASES, ids=IDS)
def test_fish_offers_the_words(line: str, offered: set[str], folder: Path) -> None:
    need("fish")
    (folder / "script").write_text(fish.script(made_up()))
    done = subprocess.run(
        ["fish", "-N", "-c", f"source ./script; complete -C '{line}'"],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert {found.partition("\t")[0] for found in done.stdout.splitlines()} >= offered


@pytest.fixture
def zsh(folder: Path) -> Iterator[Terminal]:
    need("zsh")
    (folder / "script").write_text(zsh_completion.script(made_up()))
    command = ["sh", "-c", f"cd {folder} && exec zsh -f"]
    with Terminal(command, environment(folder)) as terminal:
        terminal.send(
            "PS1='ready> '; autoload -U compinit && compinit -D -u && source ./script; echo lo''aded\n"
        )
        terminal.wait_for("^loaded$")
        yield terminal
        terminal.send("\x03exit\n")


@pytest.mark.parametrize(("line", "offered"), CASES, ids=IDS)
def test_zsh_offers_the_words(line: str, offered: set[str], zsh: Terminal) -> None:
    zsh.send(f"{line}\t")
    for word in offered:
        zsh.wait_for(word)


def test_the_names_of_backstores_are_the_services(
    service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.running = read(
        {"version": 1, "backstores": {"d2": {"handler": "null", "size": 4096}, "d1": "/a"}}, TOP
    )
    assert main(["completion", "--backstores"]) == 0
    assert capsys.readouterr().out == "d1\nd2\n"


def test_without_a_service_there_are_no_names_and_no_error(
    no_service: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "--backstores"]) == 0
    assert capsys.readouterr() == ("", "")
