"""Open commands: handed out and not completed, with tags that stay unique across resets of the ring.

Knows ids and buffers of commands, not their place in the ring.
"""

from collections.abc import Sequence

from vscsihba.errors import RingCorruptError, TransportError
from vscsihba.transport import TaskManagement

ID_MASK = 0xFFFF
"""The bits of a tag that are the kernel's cmd_id."""
_GENERATION = ID_MASK + 1
"""A tag counts the ring's resets above the cmd_id: an old tag never equals a new one."""


class OpenCommands:
    """The open commands of one ring.

    Attributes:
        views: The data buffer of each, by tag, oldest first.
        generation: Added to a cmd_id, it makes the tag.
    """

    def __init__(self) -> None:
        self.views: dict[int, list[memoryview]] = {}
        self.generation = 0
        self._lost: set[int] = set()
        self._management: list[TaskManagement] = []

    def admit(self, cmd_id: int, views: list[memoryview]) -> int:
        """Add a command, and return its tag.

        Raises:
            RingCorruptError: Its id is the one of another open command.
        """
        tag = cmd_id + self.generation
        if tag in self.views:
            raise RingCorruptError(f"command {cmd_id} came again before it was completed")
        self.views[tag] = views
        return tag

    def take_lost(self, tag: int) -> None:
        """Forget a command that a reset of the ring has ended: its late completion is ignored.

        Raises:
            TransportError: `tag` is unknown, or was completed before.
        """
        if tag not in self._lost:
            raise TransportError(f"command {tag} is not open")
        self._lost.remove(tag)

    def lose(self) -> tuple[int, ...]:
        """Drop everything after a reset of the ring; return the tags of the commands that it ended."""
        lost = tuple(self.views)
        self._lost.update(lost)
        self.views.clear()
        self._management.clear()
        self.generation += _GENERATION
        return lost

    def end_by(self, function: str, cmd_ids: Sequence[int]) -> None:
        """Add a task management request that ends commands; completed ones are left out."""
        tags = tuple(cmd_id + self.generation for cmd_id in cmd_ids)
        self._management.append(TaskManagement(function, tuple(tag for tag in tags if tag in self.views)))

    def take_management(self) -> list[TaskManagement]:
        """Remove and return the task management requests since the last call."""
        met, self._management = self._management, []
        return met
