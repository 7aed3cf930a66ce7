"""Handlers that take whole CDBs: for devices that are not disks, or that answer for themselves.

Such a handler has no verb of bytes. Every command of an initiator reaches it as it is, and
its answer goes back as it is, so nothing can be stacked on it: filters know bytes.
"""

import errno
from abc import abstractmethod
from typing import Protocol, runtime_checkable

from vscsihba.block import Capabilities, Executed, Views
from vscsihba.handlers.base import Handler


class CdbHandler(Handler):
    """A handler of whole commands.

    `geometry` is what the kernel's backstore is made with; initiators ask the device itself.
    """

    @property
    def capabilities(self) -> Capabilities:
        """Whole CDBs, and nothing else."""
        return Capabilities(whole_cdbs=True)

    @abstractmethod
    def execute(self, cdb: bytes, views: Views) -> Executed:
        """Have the device execute a command.

        Args:
            cdb: The command descriptor block; what follows its end is to be ignored.
            views: Data-out, or room for data-in, as the command goes.

        Raises:
            OSError: The command got no answer.
        """

    def read(self, offset: int, views: Views) -> None:
        """Refuse: only the device's own commands tell of its blocks."""
        raise OSError(errno.EOPNOTSUPP, f"handler {self.name} takes whole commands only")


@runtime_checkable
class TakesCommands(Protocol):
    """An object with `CdbHandler.execute`: such a handler, or the top of a stack."""

    def execute(self, cdb: bytes, views: Views) -> Executed:
        """Have the device execute a command."""


def execute(medium: Handler, cdb: bytes, views: Views) -> Executed:
    """Execute a command on the device behind `medium`; see `CdbHandler.execute`.

    Raises:
        OSError: As there; EOPNOTSUPP if there is no device behind.
    """
    if not isinstance(medium, TakesCommands):
        raise OSError(errno.EOPNOTSUPP, f"handler {medium.name} takes no commands")
    return medium.execute(cdb, views)
