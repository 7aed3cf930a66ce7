"""A logical unit, served by a real pump over an in-process ring: the complete stack without a kernel."""

import struct
import threading
from functools import partial
from types import TracebackType
from typing import Self

from vscsihba import scsi
from vscsihba.engine.serving.listeners import Listeners
from vscsihba.engine.serving.lun import ServedLun
from vscsihba.engine.serving.pump import Pump
from vscsihba.engine.serving.tap import Taps
from vscsihba.engine.serving.trace_lines import TraceLines
from vscsihba.handlers.base import Handler
from vscsihba.handlers.stack import Document, build
from vscsihba.loopback import Answer, Loopback
from vscsihba.stats import LunStats
from vscsihba.trace import TraceRecord

GOOD, CHECK_CONDITION, TASK_ABORTED = 0, 2, 0x40


class Rig:
    """A served handler stack, while the context is entered, and its initiator.

    Args:
        document: The handler stack.
        handler: An open handler to serve instead.
        trace: Keep a record of every command in `traced`.
        loopback: A ring to serve instead of a new one, with the commands that were left there.
    """

    def __init__(
        self,
        document: Document | None = None,
        *,
        handler: Handler | None = None,
        trace: bool = False,
        blocks: int = 1024,
        loopback: Loopback | None = None,
    ) -> None:
        self.stack = build(document) if document is not None else None
        self._given = handler
        self.traced: list[TraceRecord] = []
        self.taps = Taps()
        if trace:
            self.taps.observe(TraceLines(self.traced.append))
        self.loopback = loopback or Loopback(blocks=blocks)
        self.pump = Pump()
        self.stats = LunStats()
        self.failures: list[str] = []
        self.dead = False

    def __enter__(self) -> Self:
        handler = self._given or self.stack.open() if self.stack else self._given
        assert handler is not None
        self.handler = handler
        kind = scsi.PassThroughUnit if handler.capabilities.whole_cdbs else scsi.LogicalUnit
        self.unit = kind(
            handler.geometry, handler.capabilities, scsi.Identity.derive("rig"), stats=self.stats
        )
        self.served = ServedLun(
            0,
            self.loopback.transport,
            self.unit,
            handler,
            self.pump.calls,
            stats=self.stats,
            listeners=Listeners(taps=self.taps, failed=self.failures.append),
            free_kept=self.loopback.free_kept_buf,
        )
        recovered = self.loopback.transport.recover()
        self.pump.start()
        self.pump.calls.post(partial(self.served.begin, self.pump, recovered))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.dead:
            return
        closed = threading.Event()

        self.pump.calls.post(partial(self.served.end, self.pump, closed.set))
        assert closed.wait(10)
        self.pump.stop()
        self.loopback.close()
        if self.stack:
            self.stack.close()

    def die(self) -> None:
        """Stop at once, as a killed process does: nothing is finished, answered or closed."""
        self.pump.stop()
        self.dead = True
        self.loopback.transport.attach()

    def run(self, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0) -> Answer:
        """Send one command and wait for its answer."""
        return self.loopback.wait(self.loopback.submit(cdb, data_out=data_out, data_in=data_in))

    def read(self, lba: int, blocks: int, *, block_size: int = 512) -> Answer:
        """READ(10)."""
        return self.run(rw10(0x28, lba, blocks), data_in=blocks * block_size)

    def write(self, lba: int, data: bytes, *, flags: int = 0, block_size: int = 512) -> Answer:
        """WRITE(10)."""
        return self.run(rw10(0x2A, lba, len(data) // block_size, flags), data_out=data)


def rw10(opcode: int, lba: int, blocks: int, flags: int = 0) -> bytes:
    """Return a 10-byte CDB with an LBA and a length in blocks."""
    return struct.pack(">BBIBHB", opcode, flags, lba, 0, blocks, 0)


def triple(answer: Answer) -> tuple[int, int, int]:
    """Return sense key, ASC and ASCQ of fixed or descriptor format sense data."""
    sense = answer.sense
    if sense[0] & 0x7F >= 0x72:
        return sense[1] & 0xF, sense[2], sense[3]
    return sense[2] & 0xF, sense[12], sense[13]
