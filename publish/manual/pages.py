"""The pages of the manual, one for a program, a group of commands, the document, and a handler."""

import argparse
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from publish.manual.markdown import sections, write
from publish.manual.roff import Page, bold, escaped, italic, literal
from vscsihba import __version__
from vscsihba.cli import vscsitarget
from vscsihba.cli.command_table import COMMANDS, PROGRAM, CommandEntry
from vscsihba.errors import HostError
from vscsihba.handlers.option_help import describe
from vscsihba.handlers.registry import Registry

TREE: Final = Path(__file__).resolve().parents[2]
DOCS: Final = TREE / "docs"

_NAMES: Final = {
    "disks": "disks",
    "the service": "service",
    "layers of disks": "layers",
    "the machine": "machine",
}
"""Shorter names of pages than those of their groups."""
_USER_COMMANDS: Final = frozenset({"the sandbox"})
"""Groups of commands that need no administrator."""


def _page_of(group: str) -> tuple[str, str]:
    name = _NAMES.get(group) or re.sub("[^a-z]+", "-", group.removeprefix("the "))
    return f"vscsihba-{name}", "1" if group in _USER_COMMANDS else "8"


GROUPS: Final = {command.group: _page_of(command.group) for command in COMMANDS.values()}
"""Page of each group of commands: name and section."""

_OF_COMMANDS: Final = {
    "disks": ("plan and apply", "status", "save"),
    "the machine": ("doctor",),
}
"""Sections of docs/commands.md that belong to a group."""

_ENVIRONMENT: Final = {
    "VSCSIHBA_POLL": "Longest time in microseconds, 0 to 100000, for which an engine polls for the next "
    "command before it sleeps. 0 turns polling off. The default is 1000, and 0 on a machine with one "
    "processor.",
    "VSCSIHBA_COMPLETE": "Processor on which the kernel completes commands: engine or sender. By default the "
    "engine measures which is faster.",
    "VSCSIHBA_NODE_TIMEOUT": "Seconds to wait for device nodes without progress, 1 to 3600; by default 60.",
    "VSCSIHBA_SANDBOX": "Set to 1 in the sandbox.",
    "VSCSIHBA_SCRATCH": "In the sandbox with --scratch: the folder of the scratch file system.",
    "NO_COLOR": "Turns colours off.",
}
"""Every variable that the programs read or set."""


def all_pages(date: str) -> Iterator[Page]:
    """Yield every page; `date` is that in their footers, YYYY-MM-DD."""
    writer = _Pages(date)
    yield writer.overview()
    yield writer.target()
    for group in GROUPS:
        yield writer.group(group)
    yield writer.document()
    yield writer.handlers()
    for name in Registry().names():
        yield writer.handler(name)


def aliases() -> dict[str, str]:
    """Return the pages that are other names of one: for each command, the page of its group.

    A command that has a page of its own name needs none.
    """
    targets = {name: GROUPS[command.group] for name, command in COMMANDS.items()}
    return {
        f"{PROGRAM}-{name}.{section}": f"man{section}/{page}.{section}"
        for name, (page, section) in targets.items()
        if f"{PROGRAM}-{name}" != page
    }


class _Pages:
    def __init__(self, date: str) -> None:
        self._date = date

    def _page(self, name: str, section: str, summary: str) -> Page:
        return Page(name, section, summary, date=self._date, source=f"{PROGRAM} {__version__}")

    def overview(self) -> Page:
        """Return vscsihba(8)."""
        page = self._page(PROGRAM, "8", "virtual SCSI disks on Linux, served from user space")
        page.heading("Synopsis")
        page.paragraph(f"{bold(PROGRAM)} {italic('COMMAND')} [{italic('ARGUMENT')} ...]")
        page.heading("Description")
        readme = sections((TREE / "README.md").read_text())
        write(page, readme[""].partition("```")[0])
        page.paragraph(
            "A service keeps the disks as a configuration document describes them. The commands change, show "
            "and check them; they are listed here by the page that describes them."
        )
        for group, (name, section) in GROUPS.items():
            page.subheading(f"{name}({section}): {group}")
            for command in COMMANDS.values():
                if command.group == group:
                    page.tagged(bold(command.name), escaped(_sentence(command.summary)))
        page.heading("Options")
        page.tagged(bold("--help"), "Show the commands.")
        page.tagged(bold("--version"), "Show the version.")
        page.paragraph(f"Every command takes {bold('--help')} and, to print JSON, {bold('--json')}.")
        page.heading("Exit status")
        page.tagged("0", "Success.")
        page.tagged("1", "The machine has refused; the error is one line on standard error, with the remedy.")
        page.tagged("2", "Wrong usage or a wrong document; nothing has changed.")
        page.heading("Environment")
        for variable, text in _ENVIRONMENT.items():
            page.tagged(bold(variable), escaped(text))
        page.heading("Files")
        remembers = sections((DOCS / "daemon.md").read_text())["What it remembers"]
        write(page, remembers.partition("\n\n`apply`")[0])
        _see_also(page, [*GROUPS.values(), *_OTHERS])
        return page

    def target(self) -> Page:
        """Return vscsitarget(8)."""
        page = self._page("vscsitarget", "8", "attach files as SCSI disks, and serve them in the foreground")
        page.heading("Synopsis")
        page.paragraph(_usage(vscsitarget.parser()))
        page.heading("Description")
        write(page, _after_table(_of_level_three("vscsitarget")))
        page.heading("Options")
        _arguments(page, vscsitarget.parser())
        page.tagged(f"{bold('-h')}, {bold('--help')}", "Show the options.")
        page.heading("Several engines")
        write(page, _of_level_three("Several engines, and failover without loss"))
        page.heading("Examples")
        _epilog(page, vscsitarget.parser())
        _see_also(page, [(PROGRAM, "8"), ("vscsihba-handlers", "7")])
        return page

    def group(self, group: str) -> Page:
        """Return the page of a group of commands."""
        name, section = GROUPS[group]
        commands = [command for command in COMMANDS.values() if command.group == group]
        page = self._page(name, section, _summary(group, commands))
        page.heading("Synopsis")
        for command in commands:
            page.paragraph(_usage(command.load().parser()))
        page.heading("Commands")
        for command in commands:
            _command(page, command)
        for title in _OF_COMMANDS.get(group, ()):
            page.heading(f"Notes on {title}")
            write(page, sections((DOCS / "commands.md").read_text())[title])
        if group == "the service":
            write(page, (DOCS / "daemon.md").read_text().partition("\n")[2])
        if group == "the sandbox":
            write(page, "## Notes\n" + (DOCS / "sandbox.md").read_text().partition("\n")[2])
        others = [(PROGRAM, "8"), *(each for each in GROUPS.values() if each[0] != name), *_OTHERS]
        _see_also(page, others)
        return page

    def document(self) -> Page:
        """Return vscsihba.json(5)."""
        page = self._page("vscsihba.json", "5", "configuration document of vscsihba")
        page.heading("Description")
        write(page, (DOCS / "config.md").read_text().partition("\n")[2])
        _see_also(page, [(PROGRAM, "8"), ("vscsihba-disks", "8"), ("vscsihba-handlers", "7")])
        return page

    def handlers(self) -> Page:
        """Return vscsihba-handlers(7)."""
        page = self._page("vscsihba-handlers", "7", "storage handlers and filters of vscsihba")
        page.heading("Description")
        write(page, (DOCS / "handlers" / "README.md").read_text().partition("\n")[2])
        names = [(f"vscsihba-handler-{name}", "7") for name in Registry().names()]
        _see_also(page, [(PROGRAM, "8"), ("vscsihba.json", "5"), *names])
        return page

    def handler(self, name: str) -> Page:
        """Return the page of one handler."""
        kind = Registry().get(name)
        summary = (kind.__doc__ or "").strip().partition("\n")[0].removesuffix(".")
        page = self._page(f"vscsihba-handler-{name}", "7", f"{summary[:1].lower()}{summary[1:]}")
        page.heading("Synopsis")
        page.code(kind.example)
        page.heading("Description")
        for title, text in sections((DOCS / "handlers" / f"{name}.md").read_text()).items():
            if title == "Options":
                _options(page, name)
                text = re.sub(r"<!-- options -->.*<!-- end of options -->", "", text, flags=re.DOTALL)  # noqa: PLW2901
            elif title:
                page.heading(title)
            write(page, text)
        _see_also(page, [("vscsihba-handlers", "7"), ("vscsihba.json", "5")])
        return page


_OTHERS: Final = [("vscsitarget", "8"), ("vscsihba.json", "5"), ("vscsihba-handlers", "7")]


def _summary(group: str, commands: list[CommandEntry]) -> str:
    names = ", ".join(command.name for command in commands)
    if group == "the sandbox":
        return commands[0].summary
    return f"commands of vscsihba for {group}: {names}"


def _of_level_three(title: str) -> str:
    """Return a section of the README with a heading of the third level."""
    text = (TREE / "README.md").read_text()
    found = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise HostError(f"README.md has no section {title!r}")
    return found[1]


def _after_table(text: str) -> str:
    """Return the part of a section behind its table."""
    lines = text.splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if line.startswith("|"))
    return "".join(lines[last + 1 :])


def _command(page: Page, command: CommandEntry) -> None:
    parser = command.load().parser()
    page.subheading(f"{PROGRAM} {command.name}")
    page.paragraph(escaped(parser.description or ""))
    _arguments(page, parser)
    _epilog(page, parser)


def _usage(parser: argparse.ArgumentParser) -> str:
    words = " ".join(parser.format_usage().removeprefix("usage: ").split())
    program = parser.prog
    return f"{bold(program)} {literal(words.removeprefix(program).strip())}"


def _arguments(page: Page, parser: argparse.ArgumentParser) -> None:
    """Write every argument, option and verb of a parser; vscsihba(8) says that all take ``--help``."""
    for action in parser._actions:  # noqa: SLF001 - argparse offers no other way to look into a parser
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction):  # noqa: SLF001 - likewise
            continue
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - likewise
            for verb, below in action.choices.items():
                page.tagged(
                    f"{bold(f'{parser.prog} {verb}')} {_places(below)}", escaped(below.description or "")
                )
                with page.indented():
                    _arguments(page, below)
        else:
            page.tagged(_tag(action), _described(action))


def _places(parser: argparse.ArgumentParser) -> str:
    positional = [each for each in parser._actions if not each.option_strings]  # noqa: SLF001 - as above
    return " ".join(italic(_metavar(each)) for each in positional)


def _tag(action: argparse.Action) -> str:
    if not action.option_strings:
        return italic(_metavar(action))
    value = "" if action.nargs == 0 else f" {italic(_metavar(action))}"
    return ", ".join(f"{bold(flag)}{value}" for flag in action.option_strings)


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    return "|".join(map(str, action.choices)) if action.choices is not None else action.dest.upper()


def _described(action: argparse.Action) -> str:
    text = (action.help or "").strip()
    return escaped(_sentence(text % {"default": action.default} if "%(" in text else text))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".removesuffix(".") + "."


def _epilog(page: Page, parser: argparse.ArgumentParser) -> None:
    """Write the end of a help: examples, and the paragraphs behind them."""
    for block in (parser.epilog or "").strip("\n").split("\n\n"):
        lines = block.split("\n")
        if lines[0].strip() == "examples:":
            page.paragraph("Examples:")
            lines = lines[1:]
        if lines and all(line.startswith("  ") for line in lines):
            _examples(page, textwrap.dedent("\n".join(lines)))
        else:
            page.paragraph(escaped("\n".join(line.strip() for line in lines)))


def _examples(page: Page, text: str) -> None:
    """Write example lines, each comment under its command: both do not fit into 80 columns."""
    for line in text.split("\n"):
        found = re.fullmatch(r"(\S.*?\S) {2,}(\S.*)", line)
        page.tagged(bold(found[1]) if found else bold(line), escaped(_sentence(found[2])) if found else "")


def _options(page: Page, name: str) -> None:
    options = describe(Registry().get(name).Options)
    page.heading("Options")
    if not options:
        page.paragraph("It has none.")
    for option in options:
        default = "Required." if option.required else f"Default: {bold(option.default)}."
        text = f"{escaped(option.description)} {escaped(_sentence(option.type))} {default}"
        page.tagged(bold(option.name), text.strip())


def _see_also(page: Page, names: list[tuple[str, str]]) -> None:
    page.heading("See also")
    page.paragraph(", ".join(f"{bold(name)}({section})" for name, section in names))
