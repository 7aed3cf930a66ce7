"""The verb ``trace`` of a control socket: a stream of the records of finished commands (`vscsihba.records`).

A reader has a buffer of its own. If it reads too slowly, the buffer becomes full, and commands are lost to
it; each batch says how many until then. Disks never wait for it.
"""

import os
import time
from collections.abc import Sequence
from typing import Final

from vscsihba.control import Channel, Stream
from vscsihba.engine.serving.tap import BATCH, Taps, TraceBuffer
from vscsihba.errors import HostError, UsageError
from vscsihba.records import FORMAT, pack_batch

MAX_READERS: Final = 16
"""Readers of one process at the same time; each is one of the requests that a control socket carries out."""

MAX_BUFFER: Final = 1 << 30
"""Bytes of the largest buffer of a reader."""

MAX_SNAPLEN: Final = 64 << 20
"""Bytes of data that a reader gets of each command, at most."""

_PAUSE: Final = 0.05
"""Seconds between two looks at the buffer: nobody is woken by a command."""


def trace_stream(taps: Taps, hba_id: int, luns: Sequence[int] | None, *, snaplen: int, buffer: int) -> Stream:
    """Return the stream of a new reader; it observes commands once the stream runs.

    Args:
        taps: Taps of the LUNs of this process.
        hba_id: 0..255.
        luns: Numbers of the LUNs to observe, also before they are served; None: all.
        snaplen: Bytes of data of each command, at most.
        buffer: Bytes of records that are kept for the reader.

    Raises:
        UsageError: An argument is not valid.
        HostError: There are too many readers.
    """
    if not 0 <= snaplen <= MAX_SNAPLEN:
        raise UsageError(f"{snaplen} bytes of data of each command are not 0 to {MAX_SNAPLEN}")
    if not 0 < buffer <= MAX_BUFFER:
        raise UsageError(f"a buffer of {buffer} bytes is not 1 to {MAX_BUFFER}")
    if taps.count >= MAX_READERS:
        raise HostError(f"{MAX_READERS} traces of HBA {hba_id} are running", cure="end one of them")
    answer = {
        "format": FORMAT,
        "hba": hba_id,
        "pid": os.getpid(),
        "epoch": time.time() - time.monotonic(),
    }
    wanted = None if luns is None else frozenset(luns)

    def run(channel: Channel) -> None:
        reader = TraceBuffer(buffer, snaplen)
        taps.observe(reader, wanted)
        try:
            _carry(reader, channel)
        finally:
            taps.forget(reader)

    return Stream(answer, run)


def _carry(reader: TraceBuffer, channel: Channel) -> None:
    """Send the records of a reader until it has gone."""
    told, pause = 0, _PAUSE
    while channel.wait(pause):
        lost, taken = reader.lost, reader.take_out()
        if (taken or lost != told) and not channel.send(pack_batch(taken, lost)):
            return
        told, pause = lost, 0.0 if len(taken) >= BATCH else _PAUSE
