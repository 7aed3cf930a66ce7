"""One LUN: ``/hbas/hbaN/lunM``."""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from vscsihba.config.model import Lun
from vscsihba.errors import UsageError
from vscsihba.handlers.option_help import OptionHelp
from vscsihba.shell.attributes import WithAttributes
from vscsihba.shell.context import ShellContext
from vscsihba.shell.keys import keys, without_none
from vscsihba.shell.node import Summary
from vscsihba.shell.resizing import Resizable
from vscsihba.shell.values import read_flag
from vscsihba.units import format_size


class HbaBranch(Protocol):
    """The node above it."""

    id: int

    def said(self) -> tuple[dict[str, dict[str, object]], dict[str, Any]]:
        """Return all backstores, and the HBA, as plain JSON values."""


class LunNode(Resizable, WithAttributes):
    """``/hbas/hbaN/lunM``."""

    def __init__(self, number: int, parent: Any, context: ShellContext) -> None:
        super().__init__(f"lun{number}", parent, context)
        self.number = number
        self.hba: HbaBranch = parent

    @property
    def lun(self) -> Lun:
        """What the document says of it.

        Raises:
            UsageError: Nothing.
        """
        found = self.context.view.lun(self.hba.id, self.number)
        if found is None:
            raise UsageError(f"{self.path} was not made by the service", cure="use what has made it")
        return found

    @property
    def backstore(self) -> str:
        """Name of the backstore that it shows."""
        return self.lun.backstore

    def summary(self) -> Summary:
        """Say which disk it is, and how it is."""
        wanted = self.context.view.lun(self.hba.id, self.number)
        status = self.context.view.lun_status(self.hba.id, self.number)
        if status is None:
            return f"{wanted.backstore if wanted else '-'}, missing", False
        size = "-" if status["size"] is None else format_size(status["size"])
        flags = ", read-only" * status["read_only"]
        parts = (status["device"] or "no disk", size, status["backstore"] or "-", status["state"] + flags)
        return ", ".join(parts), status["state"] == "running"

    def facts(self) -> dict[str, object]:
        """Return how it is."""
        status = self.context.view.lun_status(self.hba.id, self.number)
        found: dict[str, object] = {"hba": self.hba.id, "lun": self.number}
        if status is None:
            return {**found, "state": "missing"}
        size = None if status["size"] is None else f"{format_size(status['size'])} ({status['size']} bytes)"
        return {**found, **status, "size": size}

    def attributes(self) -> list[OptionHelp]:
        """Return what a document can say of a LUN."""
        return keys(Lun, without=("lun", "backstore"))

    def values(self) -> Mapping[str, object]:
        """Return what it says."""
        found: Mapping[str, object] = msgspec.to_builtins(self.lun)
        return found

    def change(self, values: Mapping[str, object], *, replace: bool, force: bool) -> None:
        """Describe it anew."""
        backstores, hba = self.hba.said()
        hba["luns"] = [
            without_none({**lun, **values}) if lun["lun"] == self.number else lun for lun in hba["luns"]
        ]
        document = self.context.read(backstores, [hba])
        self.context.apply(document, prune="none", replace=replace, force=force)

    def ui_command_delete(self, force: str = "false") -> None:
        """Take this LUN away; force=true also while its disk is in use. Its backstore stays."""
        number = self.lun.lun  # asked of the document: one that is not in it is not ours to take away
        backstores, hba = self.hba.said()
        shown = {lun["backstore"] for lun in hba["luns"]}
        hba["luns"] = [lun for lun in hba["luns"] if lun["lun"] != number]
        kept = {name: stack for name, stack in backstores.items() if name in shown}
        self.context.apply(self.context.read(kept, [hba]), prune="named", force=read_flag("force", force))

    def ui_complete_delete(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest yes and no."""
        return self.complete_flag(text, current)
