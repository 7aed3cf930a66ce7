"""A background job of a shell: reading from the terminal or changing its mode would stop the job."""

import os
import re
import sys

from tests.terminal import Terminal

SCRIPT = "from vscsihba.sandbox import terminal as t; print(t.is_interactive(), t.is_in_background(), 'told')"


def test_only_the_job_in_the_foreground_has_the_terminal() -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "SCRIPT": SCRIPT, "PS1": "ready "}
    with Terminal(["bash", "--norc", "--noprofile", "-i"], environment) as shell:
        shell.wait_for("ready ")
        shell.send('"$PYTHON" -c "$SCRIPT"\n')
        assert re.search("^True False told", shell.wait_for("told\n"), re.MULTILINE)
        shell.send('"$PYTHON" -c "$SCRIPT" &\n')
        assert re.search("False True told", shell.wait_for("told\n"))
