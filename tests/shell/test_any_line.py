"""Any line is run, or refused with one line of output."""

import io
from contextlib import ExitStack, chdir, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.daemon.fake import serving
from vscsihba.daemon.calls import Daemon
from vscsihba.errors import VscsihbaError
from vscsihba.shell.context import ShellContext
from vscsihba.shell.line import parse, split
from vscsihba.shell.session import Session

PATHS = [
    "/",
    "..",
    "*",
    "/backstores",
    "/backstores/memory",
    "/backstores/cow",
    "/backstores/memory/d1",
    "/backstores/*",
    "/hbas",
    "/hbas/hba0",
    "/hbas/hba0/lun0",
    "/hbas/*",
    "/others",
    "/nowhere",
    "@x",
    "//",
]
COMMANDS = [
    "ls",
    "cd",
    "pwd",
    "info",
    "status",
    "help",
    "create",
    "delete",
    "resize",
    "get",
    "set",
    "nothing",
    "clearconfig",
    "saveconfig",
    "restoreconfig",
]
WORDS = [
    "d1",
    "d2",
    "0",
    "1",
    "256",
    "attribute",
    "1MiB",
    "+1MiB",
    "name=d3",
    "size=1MiB",
    "force=true",
    "replace=true",
    "confirm=true",
    "queue_depth=4",
    "read_only=true",
    "engines=2",
    "next=/x",
    "lun=3",
    "next=cow:|",
    "legs=,",
    "block_size=",
    "/no/such/file",
    "self=1",
    "parameters=2",
    "create",
    "--json",
]

MADE = ("/backstores/memory create d1 size=1MiB", "/hbas create", "/hbas/hba0 create d1")
"""A disk, so that there is something to work on."""

some = st.sampled_from
LINES = st.one_of(
    st.text(max_size=40),
    st.tuples(
        some(["", *PATHS]),
        some(["", *COMMANDS]),
        st.lists(st.one_of(some(WORDS), st.text(max_size=8)), max_size=3),
    ).map(lambda parts: " ".join([*parts[:2], *parts[2]])),
)


@given(st.text(max_size=60))
def test_any_text_is_split_and_understood_or_refused(text: str) -> None:
    with suppress(VscsihbaError):
        parse(split(text))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(LINES, min_size=1, max_size=8))
@example(["backstores/memory create d self=", "set self=1", "hbas/hba0 create d self=2"])
def test_any_lines_are_carried_out_or_refused(lines: list[str]) -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        _, path = stack.enter_context(serving(Path(folder)))
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(chdir(folder))
        session = Session(ShellContext(Daemon(path)))
        for line in [*MADE, *lines]:
            refused = refusal(session, line)
            assert refused is None or "\n" not in refused


def refusal(session: Session, line: str) -> str | None:
    """Carry out a line; return why it was refused, None if it was not."""
    try:
        session.run(split(line))
    except VscsihbaError as error:
        return str(error)
    return None
