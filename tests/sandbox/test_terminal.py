"""The interactive shell of the sandbox, used in tmux as a person does."""

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.polling import poll, wait_until
from tests.sandbox.ordinary import LIMIT, OrdinaryUser

pytestmark = pytest.mark.timeout(600)


class Tmux:
    """A terminal of 90 columns and 30 rows with one program in it."""

    def __init__(self, user: OrdinaryUser, *words: str) -> None:
        self._socket = str(user.home / "tmux")
        script = user.home / "start.sh"
        variables = [f"{name}={value}" for name, value in user.environ().items()]
        command = ["env", "-i", "TERM=screen", "PS1=$ ", *variables, *user.command(*words)]
        script.write_text("exec " + " ".join(f"'{word}'" for word in command) + "\n")
        self._tmux(
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "90",
            "-y",
            "30",
            "-c",
            str(user.home),
            "sh",
            str(script),
        )

    def _tmux(self, *words: str) -> str:
        return subprocess.run(
            ["tmux", "-S", self._socket, *words], check=True, capture_output=True, text=True
        ).stdout

    def keys(self, *keys: str) -> None:
        """Press keys, in tmux's names."""
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        """Return the text on the screen."""
        return self._tmux("capture-pane", "-p")

    def shows(self, text: str) -> bool:
        """Wait until a text is on the screen, and tell whether it is."""
        return poll(lambda: text in self.screen(), limit=LIMIT)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def is_there(self) -> bool:
        """Tell whether the program still runs."""
        return (
            subprocess.run(
                ["tmux", "-S", self._socket, "has-session"], check=False, capture_output=True
            ).returncode
            == 0
        )

    def close(self) -> None:
        """End it."""
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def shell(user: OrdinaryUser) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("needs tmux")
    (user.home / ".bashrc").write_text("PS1='sandbox> '\n")
    terminal = Tmux(user, "--disk", "memory:16MiB")
    yield terminal
    terminal.close()


def test_the_shell_is_a_shell(shell: Tmux) -> None:
    """It has a size, job control, Ctrl-C, and the disk; the terminal is put right at the end."""
    assert shell.shows("sandbox>"), shell.screen()
    shell.keys("stty size; lsblk -dnr -o NAME,SIZE /dev/sda", "Enter")
    assert shell.shows("30 90"), shell.screen()
    assert shell.shows("sda 16M"), shell.screen()
    shell.resize(70, 20)
    shell.keys("clear; stty size", "Enter")
    assert shell.shows("20 70"), shell.screen()
    shell.keys("""sh -c 'echo be"gun"; exec sleep 1000'""", "Enter")
    assert shell.shows("begun"), shell.screen()
    shell.keys("C-z")
    assert shell.shows("Stopped"), shell.screen()
    shell.keys("clear", "Enter")
    wait_until(lambda: "Stopped" not in shell.screen(), shell.screen, limit=LIMIT)
    shell.keys("fg", "Enter")
    assert shell.shows("sh -c"), shell.screen()
    shell.keys("C-c")
    shell.keys("echo ended with $?", "Enter")
    assert shell.shows("ended with 130"), shell.screen()
    shell.keys("exit 3", "Enter")
    wait_until(lambda: not shell.is_there(), shell.screen, limit=LIMIT)
