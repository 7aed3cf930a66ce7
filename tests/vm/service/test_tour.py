"""The tour of the README, typed into a terminal as it is written there."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.daemon import RUNNING, SAVED, SOCKET, VSCSIHBA, vscsihba
from tests.vm.shell import run
from tests.vm.target import our_processes
from tests.vm.tour import README, Step, pattern, steps


class Screen:
    """A bash in a tmux session of its own, and what its terminal shows."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "tmux"
        environment = {
            **os.environ,
            "PATH": f"{VSCSIHBA.parent}:{os.environ['PATH']}",
            "PS1": "# ",
            "TERM": "xterm",
            "LC_ALL": "C.UTF-8",
            "HOME": str(folder),
        }
        session = ["new-session", "-d", "-x", "160", "-y", "50", "-c", str(folder)]
        command = [*self._tmux, "-f", "/dev/null", *session, "bash", "--norc", "--noprofile"]
        subprocess.run(command, env=environment, check=True)

    @property
    def _tmux(self) -> list[str]:
        return ["tmux", "-S", str(self._socket)]

    def lines(self) -> list[str]:
        """Return all that has been shown, line by line."""
        shown = run(*self._tmux, "capture-pane", "-p", "-J", "-S", "-")
        return [line.rstrip() for line in shown.rstrip().splitlines()]

    def type(self, *lines: str) -> None:
        """Type lines."""
        for line in lines:
            run(*self._tmux, "send-keys", "-l", "--", line)
            run(*self._tmux, "send-keys", "Enter")

    def wait_for_prompt(self, prompt: str, after: int) -> list[str]:
        """Return the lines from the given one on, once the last one is a prompt."""

        def ready() -> bool:
            lines = self.lines()
            return len(lines) > after and lines[-1] == prompt

        deadline = time.monotonic() + 300
        while not ready():
            assert time.monotonic() < deadline, f"no prompt {prompt}:\n" + "\n".join(self.lines())
            time.sleep(0.5)  # a look is a process, and would slow down what it waits for
        return self.lines()[after:-1]

    def close(self) -> None:
        """End all that runs in it."""
        run(*self._tmux, "kill-server", check=False)


@pytest.fixture
def screen(scratch: Path) -> Iterator[Screen]:
    found = Screen(scratch)
    yield found
    found.close()


@pytest.fixture
def srv(scratch: Path) -> Iterator[None]:
    """A /srv on the scratch disk, for images."""
    folder = scratch / "srv"
    folder.mkdir()
    run("mount", "--bind", folder, "/srv")
    yield
    run("umount", "/srv")


@pytest.fixture
def clean() -> Iterator[None]:
    """Nothing remembered; and no service and no disk afterwards, wherever the tour has ended."""
    for left in (RUNNING, SAVED):
        left.unlink(missing_ok=True)
    yield
    run("umount", "/mnt", check=False)
    for pid in [pid for pid, line in our_processes() if "vscsihba daemon" in line]:
        vscsihba("clear", "--all", "--force")
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "the end of the service")  # type: ignore[misc]
    for left in (RUNNING, SAVED):
        left.unlink(missing_ok=True)


def follows(step: Step, shown: list[str]) -> None:
    """Compare the output with the page, line by line."""
    said = [line for line in step.shown if line]
    found = [line for line in shown if line]
    exact = step.typed != ("vscsihba status",)
    assert len(said) == len(found), f"{step.typed[0]}: said\n{said}\nshown\n{found}"
    for expected, line in zip(said, found, strict=True):
        assert re.fullmatch(pattern(expected, exact_numbers=exact), line), f"said:  {expected}\nshown: {line}"


@pytest.mark.long
def test_the_tour_of_the_readme_is_as_it_is_written(screen: Screen, srv: None, clean: None) -> None:
    tour = steps(README.read_text(), "Five minutes")
    assert len(tour) > 15
    following = [*(step.prompt for step in tour[1:]), "#"]
    screen.wait_for_prompt("#", 0)
    for step, prompt in zip(tour, following, strict=True):
        before = len(screen.lines())
        screen.type(*step.typed)
        shown = screen.wait_for_prompt(prompt, before + len(step.typed) - 1)
        if step.typed[0].endswith("&"):
            # It is started, and a person takes a breath.
            wait_until(SOCKET.exists, "the service", limit=300)
        else:
            follows(step, shown)
