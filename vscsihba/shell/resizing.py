"""The command ``resize``, which a backstore and its LUN share."""

from collections.abc import Mapping

from vscsihba.errors import UsageError
from vscsihba.shell import suggestions
from vscsihba.shell.node import Node
from vscsihba.units import format_size, parse_size


class Resizable(Node):
    """A node with a backstore that can be enlarged."""

    @property
    def backstore(self) -> str:
        """Name of the backstore."""
        raise NotImplementedError

    def ui_command_resize(self, size: str) -> None:
        """Enlarge to SIZE, such as 20GiB, or by +512M, while the disk is in use. A disk cannot shrink."""
        wanted = parse_size(size.removeprefix("+")) + (self._present() if size.startswith("+") else 0)
        done = self.context.daemon.resize(self.backstore, wanted)
        self.context.unsaved = True
        self.context.tell(f"{self.backstore} now has {format_size(wanted)}", done)

    def ui_complete_resize(self, _parameters: Mapping[str, str], text: str, current: str) -> list[str]:
        """Suggest sizes."""
        return suggestions.sizes(text) if current == "size" else []

    def _present(self) -> int:
        """Return the size of its disk in bytes."""
        place = self.context.view.document.place_of(self.backstore)
        status = None if place is None else self.context.view.lun_status(*place)
        if status is None or status["size"] is None:
            raise UsageError(f"no LUN has the backstore {self.backstore}", cure="give the whole size")
        return status["size"]
