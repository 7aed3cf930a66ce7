"""Commands that all nodes of the tree share. Commands of configshell that make no sense here are removed.

A command is a method ``ui_command_NAME``; its docstring is its help, its parameters are its arguments.
"""

import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from configshell_fb import ConfigNode

from vscsihba.config.load import load
from vscsihba.daemon.state import SAVED
from vscsihba.errors import UsageError
from vscsihba.handlers.options import did_you_mean
from vscsihba.shell import suggestions
from vscsihba.shell.context import ShellContext
from vscsihba.shell.values import read_flag
from vscsihba.units import format_size

Summary = tuple[str, bool | None]
"""Text beside a node in the tree, and whether the node is healthy; None if it has no health."""

_INTRODUCTION: Final = """
    Disks as a tree: /backstores has the storage, /hbas the adapters whose LUNs Linux sees as disks, and
    /exports the targets that show disks to other computers.

        [PATH] COMMAND [WORD ...] [NAME=VALUE ...]

    TAB completes paths, commands, names and values; "help COMMAND" explains a command.
    To keep the configuration for the next start, run "saveconfig".
"""


class Node(ConfigNode):  # type: ignore[misc]  # configshell has no types
    """A node of the tree.

    Args:
        name: Last component of its path.
        parent: The node above it.
        context: Shared context of the tree.
    """

    help_intro = _INTRODUCTION
    lists_all = False
    """Its `ls` shows empty folders too."""
    ui_command_bookmarks = None
    ui_command_get: Any = None
    ui_command_set: Any = None

    def __init__(self, name: str, parent: "Node | None", context: ShellContext, shell: Any = None) -> None:
        super().__init__(name, parent, shell)
        self.context = context

    # Description.

    def facts(self) -> dict[str, object]:
        """Return its details by name."""
        text, _ = self.summary()
        return {"path": self.path, "is": text}

    def as_tree(self) -> dict[str, object]:
        """Return the node and all nodes below as plain JSON values."""
        text, well = self.summary()
        children = [child.as_tree() for child in sorted(self.children, key=lambda child: child.path)]
        return {"path": self.path, "text": text, "well": well, "children": children}

    # Commands.

    def ui_command_ls(self, path: str | None = None, depth: str | None = None) -> None:
        """Show the tree below PATH, DEPTH levels of it."""
        target = self.get_node(path)
        self.context.terse = not target.lists_all
        try:
            if self.context.as_json:
                self.context.tell("", target.as_tree())
            else:
                super().ui_command_ls(path, depth)
        finally:
            self.context.terse = False

    def ui_command_cd(self, path: str = "/") -> "Node":
        """Change to PATH, or to the root of the tree."""
        node: Node = self.get_node(path)
        return node

    def ui_command_pwd(self) -> None:
        """Show the current path."""
        self.context.tell(self.path, {"path": self.path})

    def ui_command_info(self) -> None:
        """Show details of this object."""
        facts = self.facts()
        width = max(map(len, facts), default=0)
        shown = {name: "-" if value is None else value for name, value in facts.items()}
        self.context.tell("\n".join(f"{name:{width}}  {value}" for name, value in shown.items()), facts)

    def ui_command_status(self) -> None:
        """Show the state of every LUN."""
        luns = [{"hba": hba_id, **lun} for hba_id, lun in self.context.view.all_luns()]
        lines = [_line_of(lun) for lun in luns]
        self.context.tell("\n".join(lines) or "no LUNs", luns)

    def ui_command_saveconfig(self, savefile: str | None = None, force: str = "false") -> None:
        """Save the running configuration for the next start, or to SAVEFILE.

        The last ten versions are kept. To replace a saved configuration by an empty one, use force=true.
        """
        wanted = None if savefile is None else Path(savefile).absolute()
        path = self.context.daemon.save(wanted, force=read_flag("force", force))
        self.context.unsaved = self.context.unsaved and savefile is not None
        self.context.tell(f"saved in {path}", {"path": str(path)})

    def ui_command_restoreconfig(
        self, savefile: str = str(SAVED), replace: str = "false", force: str = "false"
    ) -> None:
        """Apply the configuration in SAVEFILE, by default the one that was saved last.

        Disks that it does not change keep running. replace=true also detaches and recreates disks where a
        change needs it; force=true also removes disks that are in use.
        """
        document = load(Path(savefile), self.context.registry)
        flags = {"replace": read_flag("replace", replace), "force": read_flag("force", force)}
        self.context.apply(document, prune="all", **flags)

    def ui_command_clearconfig(self, confirm: str = "false", force: str = "false") -> None:
        """Remove every disk, HBA, export and backstore; files stay. Needs confirm=true.

        force=true also removes disks that are in use.
        """
        if not read_flag("confirm", confirm):
            raise UsageError("this removes every disk", cure="use clearconfig confirm=true")
        self.context.apply(self.context.read({}, []), prune="all", force=read_flag("force", force))

    def ui_command_help(self, topic: str | None = None) -> None:
        """List the commands of this node, or explain the command TOPIC."""
        known = {name: self.get_command_syntax(name)[0].strip() for name in self.list_commands()}
        if topic is not None:
            if topic not in known:
                raise UsageError(f"{self.path} has no command {topic!r}", cure=did_you_mean(topic, known))
            said = self.get_command_description(topic)
            self.context.tell(f"{known[topic]}\n\n{said}", {"command": known[topic], "help": said})
            return
        first = {name: self.get_command_description(name).partition("\n")[0] for name in known}
        width = max(map(len, known.values()))
        columns = self.context.console.get_width()
        indent = " " * (width + 4)
        lines = [
            textwrap.fill(
                first[name],
                max(columns, len(indent) + 20),
                initial_indent=f"  {known[name]:{width}}  ",
                subsequent_indent=indent,
                break_on_hyphens=False,
            )
            for name in known
        ]
        introduction = [
            textwrap.fill(line, columns) for line in inspect.cleandoc(self.help_intro).split("\n")
        ]
        self.context.tell("\n".join([*introduction, "", *lines]), first)

    def ui_command_exit(self) -> str:
        """Leave the shell; the disks keep running."""
        return "EXIT"

    # Completion.

    def ui_complete_saveconfig(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest files."""
        return suggestions.files(text) if current == "savefile" else self.complete_flag(text, current)

    ui_complete_restoreconfig = ui_complete_saveconfig

    def ui_complete_clearconfig(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest true and false."""
        return self.complete_flag(text, current)

    def complete_flag(self, text: str, current: str) -> list[str]:
        """Suggest true and false for a flag."""
        return suggestions.flags(text) if current in ("force", "replace", "confirm") else []

    # Hooks of configshell to find and run a command.

    def execute_command(
        self, command: str, pparams: Sequence[str] = (), kparams: Mapping[str, str] | None = None
    ) -> Any:
        """Run a command, and return the node to change to.

        Raises:
            UsageError: The node has no such command, or its arguments are wrong.
        """
        if command not in self.list_commands():
            raise UsageError(
                f"{self.path} has no command {command!r}", cure=did_you_mean(command, self.list_commands())
            )
        return super().execute_command(command, list(pparams), dict(kparams or {}))

    def assert_params(
        self, method: Callable[..., object], pparams: Sequence[str], kparams: Mapping[str, str]
    ) -> None:
        """Check the arguments of a command.

        Raises:
            UsageError: The command does not take them, or needs others.
        """
        try:
            inspect.signature(method).bind(*pparams, **kparams)
        except TypeError as error:
            command = method.__name__.removeprefix(self.ui_command_method_prefix)
            syntax = self.get_command_syntax(command)[0].strip()
            raise UsageError(f"{command}: {error}", cure=f"use: {syntax}") from error

    def get_command_description(self, command: str) -> str:
        """Return the help of a command."""
        return inspect.cleandoc(self.get_command_method(command).__doc__ or "")

    def get_node(self, path: str | None) -> "Node":
        """Return the node at a path from here.

        Raises:
            UsageError: There is no node at the path.
        """
        try:
            node: Node = super().get_node(path)
        except (ValueError, UsageError) as error:  # configshell names only one component of the path
            raise UsageError(f"there is no {path}", cure='see "ls /"') from error
        return node


def _line_of(lun: Mapping[str, Any]) -> str:
    """Return the state of a LUN in one line."""
    size = "-" if lun["size"] is None else format_size(lun["size"])
    rate = "" if lun["iops"] is None else f", {lun['iops']:.0f} IOPS"
    place = f"hba{lun['hba']}/lun{lun['lun']}"
    return (
        f"{place:12}  {lun['device'] or '-':10}  {size:>10}  {lun['backstore'] or '-'}: {lun['state']}{rate}"
    )
