"""A session: runs lines from a prompt, a script or the command line.

Every line starts with a new state of the service, so that the tree is current. An error is one line with
cause and remedy; it ends a script.
"""

import contextlib
import os
import readline
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from configshell_fb import ConfigShell, ExecutionError

from vscsihba.errors import UsageError, VscsihbaError
from vscsihba.shell.console import Silence
from vscsihba.shell.context import ShellContext
from vscsihba.shell.line import parse, split
from vscsihba.shell.node import Node
from vscsihba.shell.tree import RootNode

_HISTORY: Final = "vscsihba/history"
"""Below $XDG_STATE_HOME."""

_KEPT: Final = 1000
"""Lines of history."""

_IN_A_SHELL: Final = {"--replace": "replace=true", "--force": "force=true", "--prune": "prune="}
"""Options in the messages of the service, and the same in the shell."""


class Session(ConfigShell):  # type: ignore[misc]  # configshell has no types
    """A shell on a service.

    Args:
        context: Context of its tree.
    """

    def __init__(self, context: ShellContext) -> None:
        super().__init__()
        self.log = Silence()
        self.con = context.console
        self.prefs["tree_round_nodes"] = True
        self.context = context
        self._current_node: Node = RootNode(context, self)

    def run(self, words: Sequence[str]) -> None:
        """Run one line that has been split into words.

        Raises:
            VscsihbaError: The command fails; nothing has changed.
        """
        if not words:
            return
        self._refresh()
        line = parse(words, here=self._children())
        try:
            self._execute_command(line.path, line.command, list(line.positional), dict(line.named))
        except ExecutionError as error:
            text = str(error).rstrip(".")
            raise UsageError(f"{text[:1].lower()}{text[1:]}", cure='see "help"') from error
        except VscsihbaError as error:
            raise _for_shell(error) from error

    def run_script(self, lines: Iterable[str]) -> None:
        """Run lines until one fails, or is "exit".

        Raises:
            VscsihbaError: A line fails; its number is in the message.
        """
        for number, text in enumerate(lines, 1):
            try:
                self.run(split(text))
            except VscsihbaError as error:
                raise type(error)(f"line {number}: {error.message}", cure=error.cure) from error
            if self._exit:
                return

    def interact(self) -> None:
        """Run lines from the prompt until "exit" or the end of input."""
        self._recall_lines()
        readline.parse_and_bind("tab: complete")
        readline.set_completer(self._complete)
        readline.set_completer_delims("\t\n ")
        readline.set_completion_display_matches_hook(self._display_completions)
        while not self._exit:
            try:
                self.run(split(input(self._get_prompt())))
            except EOFError:
                self.con.display("exit")
                break
            except KeyboardInterrupt:
                self.con.display("^C")
            except VscsihbaError as error:
                self.con.display(self.con.render_text(f"error: {error}", "red"), error=True)
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                self.con.display(f"error: {where}{error.strerror or error}", error=True)
        self._keep_lines()
        if self.context.unsaved:
            self.con.display('not saved: to keep the changes for the next start, run "vscsihba save"')

    def _children(self) -> set[str]:
        """Return the names of the children, except those that are commands too."""
        return {child.name for child in self._current_node.children} - {*self._current_node.list_commands()}

    def _refresh(self) -> None:
        """Build the tree again; stay at the current node, or at the nearest one above that still exists."""
        path: str = self._current_node.path
        self.context.look()
        root = RootNode(self.context, self)
        while True:
            try:
                self._current_node = root.get_node(path)
                return
            except UsageError:
                path = path.rpartition("/")[0] or "/"

    def _display_completions(self, _substitution: str, matches: Sequence[str], _longest: int) -> None:
        """Show completions in columns, and the line again; configshell would query the cursor position."""
        shown = [_last_part(match) for match in matches]
        width = max(map(len, shown)) + 2
        columns = max(1, self.con.get_width() // width)
        self.con.raw_write("\n")
        for start in range(0, len(shown), columns):
            row = shown[start : start + columns]
            self.con.raw_write("".join(f"{word:{width}}" for word in row).rstrip() + "\n")
        self.con.raw_write(f"{self._get_prompt()}{readline.get_line_buffer()}")

    def _complete(self, text: str, state: int) -> str | None:
        """Return one completion after the other from the current state; None after the last."""
        try:
            if state == 0:
                self._refresh()
            result: str | None = super()._complete(text, state)
        except (VscsihbaError, ValueError, AttributeError, LookupError, TypeError):
            return None
        return result

    def _recall_lines(self) -> None:
        with contextlib.suppress(OSError):
            readline.read_history_file(_history())
        readline.set_history_length(_KEPT)

    def _keep_lines(self) -> None:
        with contextlib.suppress(OSError):
            _history().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            readline.write_history_file(_history())


def _history() -> Path:
    """Return the path of the history file."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / _HISTORY


def _last_part(match: str) -> str:
    """Return the new part of a completion: the last component of a path."""
    text = match.rstrip()
    head, _, tail = text.rstrip("/").rpartition("/")
    return tail + "/" * text.endswith("/") if head or text.startswith("/") else text


def _for_shell(error: VscsihbaError) -> VscsihbaError:
    """Return an error of the service, with options as the shell writes them."""
    cure = error.cure
    for flag, word in _IN_A_SHELL.items():
        cure = cure.replace(flag, word) if cure is not None else None
    kind = UsageError if isinstance(error, UsageError) else VscsihbaError
    result = kind(error.message, cure=cure)
    result.exit_code = error.exit_code
    return result
