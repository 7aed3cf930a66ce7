"""The results of the measurements that need no kernel."""

from dataclasses import dataclass, field
from typing import Final

from tests.bench.command_path import Row
from tests.bench.slow_flush import SlowFlush
from tests.bench.stacks.measure import StackRow

NATIVE_PARTS: Final = ("commands", "layers", "nbd", "rbd", "http", "qemu", "flush", "stacks")


@dataclass(slots=True)
class Native:
    """Results of one run; a part that was not run has none.

    Attributes:
        rows: Single commands, and those on remote storage.
        stacks: Stacks of handlers.
        slow_flush: Reads beside a slow flush.
    """

    rows: list[Row] = field(default_factory=list)
    stacks: list[StackRow] = field(default_factory=list)
    slow_flush: SlowFlush | None = None
