"""The root of the tree, which is built again from each state of the service."""

from typing import Any

from vscsihba.shell.backstores import BackstoresNode
from vscsihba.shell.context import ShellContext
from vscsihba.shell.exports import ExportsNode
from vscsihba.shell.hbas import HbasNode
from vscsihba.shell.node import Node, Summary
from vscsihba.shell.others import OthersNode
from vscsihba.units import counted


class RootNode(Node):
    """``/``."""

    def __init__(self, context: ShellContext, shell: Any) -> None:
        super().__init__("/", None, context, shell)
        BackstoresNode(self, context)
        HbasNode(self, context)
        ExportsNode(self, context)
        if context.view.others:
            OthersNode(self, context)

    def summary(self) -> Summary:
        """Return the number of disks, and how many do not run."""
        luns = [lun for _, lun in self.context.view.all_luns()]
        ill = sum(lun["state"] != "running" for lun in luns)
        count = counted(len(luns), "disk")
        return (f"{count}, {ill} not running", False) if ill else (count, True if luns else None)
