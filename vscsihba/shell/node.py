"""The nodes of the tree: what all of them can do. Commands of configshell that make no sense here are gone.

A command is a method ``ui_command_NAME``; its docstring is its help, its parameters are its words.
"""

import inspect
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
"""What stands beside a node in the tree, and whether it is well; None where that means nothing."""

_INTRODUCTION: Final = """
    Disks as a tree: /backstores is what there is to show, /hbas shows it to Linux.

        [PATH] COMMAND [WORD ...] [NAME=VALUE ...]

    TAB completes paths, commands, names and values; "help COMMAND" says more about one.
    Nothing is kept for the next start until "saveconfig".
"""


class Node(ConfigNode):  # type: ignore[misc]  # configshell has no types
    """A node of the tree.

    Args:
        name: What its path ends with.
        parent: The node above it.
        context: What it works with.
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

    # What it says of itself.

    def facts(self) -> dict[str, object]:
        """Return what there is to know of it, by name."""
        text, _ = self.summary()
        return {"path": self.path, "is": text}

    def as_tree(self) -> dict[str, object]:
        """Return it, and all below it, as plain JSON values."""
        text, well = self.summary()
        children = [child.as_tree() for child in sorted(self.children, key=lambda child: child.path)]
        return {"path": self.path, "text": text, "well": well, "children": children}

    # Commands.

    def ui_command_ls(self, path: str | None = None, depth: str | None = None) -> None:
        """Show the tree, from PATH on, DEPTH levels of it."""
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
        """Go to PATH, or to the root of the tree."""
        found: Node = self.get_node(path)
        return found

    def ui_command_pwd(self) -> None:
        """Show where this is."""
        self.context.tell(self.path, {"path": self.path})

    def ui_command_info(self) -> None:
        """Show all there is to know of this."""
        facts = self.facts()
        width = max(map(len, facts), default=0)
        shown = {name: "-" if value is None else value for name, value in facts.items()}
        self.context.tell("\n".join(f"{name:{width}}  {value}" for name, value in shown.items()), facts)

    def ui_command_status(self) -> None:
        """Show how every LUN is."""
        luns = [{"hba": hba_id, **lun} for hba_id, lun in self.context.view.all_luns()]
        lines = [_line_of(lun) for lun in luns]
        self.context.tell("\n".join(lines) or "no LUNs", luns)

    def ui_command_saveconfig(self, savefile: str | None = None, force: str = "false") -> None:
        """Keep what runs for the next start, or in SAVEFILE.

        An empty configuration replaces one that is not only with force=true. The last ten versions are kept.
        """
        wanted = None if savefile is None else Path(savefile).absolute()
        path = self.context.daemon.save(wanted, force=read_flag("force", force))
        self.context.unsaved = self.context.unsaved and savefile is not None
        self.context.tell(f"saved in {path}", {"path": str(path)})

    def ui_command_restoreconfig(
        self, savefile: str = str(SAVED), replace: str = "false", force: str = "false"
    ) -> None:
        """Make it what SAVEFILE says, by default what was saved last.

        Only what differs is touched. replace=true also changes what cannot be changed while a disk works;
        force=true also takes disks away that are in use.
        """
        document = load(Path(savefile), self.context.registry)
        flags = {"replace": read_flag("replace", replace), "force": read_flag("force", force)}
        self.context.apply(document, prune="all", **flags)

    def ui_command_clearconfig(self, confirm: str = "false", force: str = "false") -> None:
        """Take away every disk, HBA and backstore; files stay. Needs confirm=true.

        force=true also takes disks away that are in use.
        """
        if not read_flag("confirm", confirm):
            raise UsageError("this takes away every disk", cure="write clearconfig confirm=true")
        self.context.apply(self.context.read({}, []), prune="all", force=read_flag("force", force))

    def ui_command_help(self, topic: str | None = None) -> None:
        """Say what can be done here, or all about the command TOPIC."""
        known = {name: self.get_command_syntax(name)[0].strip() for name in self.list_commands()}
        if topic is not None:
            if topic not in known:
                raise UsageError(f"{self.path} has no command {topic!r}", cure=did_you_mean(topic, known))
            said = self.get_command_description(topic)
            self.context.tell(f"{known[topic]}\n\n{said}", {"command": known[topic], "help": said})
            return
        first = {name: self.get_command_description(name).partition("\n")[0] for name in known}
        width = max(map(len, known.values()))
        lines = [f"  {known[name]:{width}}  {first[name]}" for name in known]
        self.context.tell("\n".join([inspect.cleandoc(self.help_intro), "", *lines]), first)

    def ui_command_exit(self) -> str:
        """Leave the shell; disks work on."""
        return "EXIT"

    # Completion.

    def ui_complete_saveconfig(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest files."""
        return suggestions.files(text) if current == "savefile" else self.complete_flag(text, current)

    ui_complete_restoreconfig = ui_complete_saveconfig

    def ui_complete_clearconfig(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest yes and no."""
        return self.complete_flag(text, current)

    def complete_flag(self, text: str, current: str) -> list[str]:
        """Suggest yes and no for a parameter that is a flag."""
        return suggestions.flags(text) if current in ("force", "replace", "confirm") else []

    # How configshell finds and runs a command.

    def execute_command(
        self, command: str, pparams: Sequence[str] = (), kparams: Mapping[str, str] | None = None
    ) -> Any:
        """Run a command, and return where it leads.

        Raises:
            UsageError: There is none of that name here, or its words are not right.
        """
        if command not in self.list_commands():
            raise UsageError(
                f"{self.path} has no command {command!r}", cure=did_you_mean(command, self.list_commands())
            )
        return super().execute_command(command, list(pparams), dict(kparams or {}))

    def assert_params(
        self, method: Callable[..., object], pparams: Sequence[str], kparams: Mapping[str, str]
    ) -> None:
        """Refuse words that a command does not take.

        Raises:
            UsageError: It does not take them, or needs others.
        """
        try:
            inspect.signature(method).bind(*pparams, **kparams)
        except TypeError as error:
            command = method.__name__.removeprefix(self.ui_command_method_prefix)
            syntax = self.get_command_syntax(command)[0].strip()
            raise UsageError(f"{command}: {error}", cure=f"write: {syntax}") from error

    def get_command_description(self, command: str) -> str:
        """Return the help of a command."""
        return inspect.cleandoc(self.get_command_method(command).__doc__ or "")

    def get_node(self, path: str | None) -> "Node":
        """Return the node at a path from here.

        Raises:
            UsageError: There is none.
        """
        try:
            found: Node = super().get_node(path)
        except (ValueError, UsageError) as error:  # one for each part of the path; the whole path is said
            raise UsageError(f"there is no {path}", cure='see "ls /"') from error
        return found


def _line_of(lun: Mapping[str, Any]) -> str:
    """Return how a LUN is, in one line."""
    size = "-" if lun["size"] is None else format_size(lun["size"])
    rate = "" if lun["iops"] is None else f", {lun['iops']:.0f} IOPS"
    place = f"hba{lun['hba']}/lun{lun['lun']}"
    return (
        f"{place:12}  {lun['device'] or '-':10}  {size:>10}  {lun['backstore'] or '-'}: {lun['state']}{rate}"
    )
