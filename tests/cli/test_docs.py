"""The pages about the commands and the shell: everything that is there stands in them, and nothing else."""

import re
from pathlib import Path

import pytest

from tests.daemon.fake import serving
from tests.vm.tour import README, pattern, steps
from vscsihba.cli.command_table import COMMANDS
from vscsihba.cli.commands import completion
from vscsihba.daemon.calls import Daemon
from vscsihba.shell.context import ShellContext
from vscsihba.shell.line import split
from vscsihba.shell.session import Session

DOCS = README.parent / "docs"
COMMANDS_PAGE = (DOCS / "commands.md").read_text()
SHELL_PAGE = (DOCS / "shell.md").read_text()


def test_the_page_has_every_command_and_no_other() -> None:
    rows = re.findall(r"^\| (`.+?) \|", COMMANDS_PAGE.partition("## ")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z-]+)", row)}
    assert named == set(COMMANDS)


@pytest.mark.parametrize("name", ["plan", "apply"])
def test_the_page_has_every_option_of_what_changes_disks(name: str) -> None:
    options = {option.flags[-1] for option in completion.whole().commands[name].options}
    assert {option for option in options if f"`{option}" in COMMANDS_PAGE} == options - {"--help"}


def test_the_page_of_the_shell_has_every_command_of_every_node(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, path):
        session = Session(ShellContext(Daemon(path)))
        for line in ("/backstores/memory create d1 size=1MiB", "/hbas create", "/hbas/hba0 create d1"):
            session.run(split(line))
        session.context.look()
        session._refresh()
        nodes = [session._current_node]
        commands = set()
        for node in nodes:
            nodes += node.children
            commands |= set(node.list_commands())
    table = SHELL_PAGE.partition("| where |")[2].partition("\n\n")[0]
    assert {word for found in re.findall(r"`([a-z]+)", table) for word in [found]} & commands == commands


def test_the_tour_can_be_read() -> None:
    tour = steps(README.read_text(), "Five minutes")
    assert {step.prompt for step in tour} == {"#", "/>"}
    assert all(step.typed[0] for step in tour)
    for step in tour:
        for line in step.shown:
            assert re.fullmatch(pattern(line, exact_numbers=True), line)
            assert re.fullmatch(pattern(line, exact_numbers=False), line)


def test_times_in_the_tour_are_of_any_length() -> None:
    said = "service: running for 41 s, pid 4711"
    for shown in ("service: running for 5 min 41 s, pid 9", "service: running for 2 h, pid 12345"):
        assert re.fullmatch(pattern(said, exact_numbers=False), shown)


def test_a_line_of_the_tour_stands_for_another_day() -> None:
    row = "0    0    d1   /dev/sda  2.0 GiB  running  4730    0     file /srv/d1.img  scsi-36f1fc1d61bbfd7fd"
    other = (
        "0    0    d1   /dev/sdc  2.0 GiB  running  99      12    file /srv/d1.img  scsi-3000000000000000f"
    )
    assert re.fullmatch(pattern(row, exact_numbers=False), other)
    assert not re.fullmatch(pattern(row, exact_numbers=True), other)
    assert not re.fullmatch(pattern(row, exact_numbers=False), other.replace("running", "failing"))
