"""The commands that were handed out and are owed an answer, under tags that no reset makes ambiguous.

Knows names and buffers of commands, not where they are in the ring.
"""

from collections.abc import Sequence

from vscsihba.errors import RingCorruptError, TransportError
from vscsihba.transport import TaskManagement

ID_MASK = 0xFFFF
"""The bits of a tag that are the kernel's cmd_id."""
_GENERATION = ID_MASK + 1
"""A tag counts the ring's resets above the cmd_id: one from before is never taken for a new one."""


class OpenCommands:
    """What the kernel waits for.

    Attributes:
        views: The data buffer of each, by tag, oldest first.
        generation: What makes a tag of a cmd_id, by addition.
    """

    def __init__(self) -> None:
        self.views: dict[int, list[memoryview]] = {}
        self.generation = 0
        self._lost: set[int] = set()
        self._management: list[TaskManagement] = []

    def admit(self, cmd_id: int, views: list[memoryview]) -> int:
        """Note a command, and return its tag.

        Raises:
            RingCorruptError: Its id is the one of another open command.
        """
        tag = cmd_id + self.generation
        if tag in self.views:
            raise RingCorruptError(f"command {cmd_id} came again before it was answered")
        self.views[tag] = views
        return tag

    def take_lost(self, tag: int) -> None:
        """Forget a command that a reset of the ring has ended: its late completion is ignored.

        Raises:
            TransportError: `tag` was never given out, or is completed already.
        """
        if tag not in self._lost:
            raise TransportError(f"command {tag} is not open")
        self._lost.remove(tag)

    def lose(self) -> tuple[int, ...]:
        """Forget everything after a reset of the ring, and return the tags of what it ended."""
        lost = tuple(self.views)
        self._lost.update(lost)
        self.views.clear()
        self._management.clear()
        self.generation += _GENERATION
        return lost

    def end_by(self, function: str, cmd_ids: Sequence[int]) -> None:
        """Note a task management request that ends commands, of which some may be answered already."""
        tags = tuple(cmd_id + self.generation for cmd_id in cmd_ids)
        self._management.append(TaskManagement(function, tuple(tag for tag in tags if tag in self.views)))

    def take_management(self) -> list[TaskManagement]:
        """Return and forget the task management requests met since the last call."""
        met, self._management = self._management, []
        return met
