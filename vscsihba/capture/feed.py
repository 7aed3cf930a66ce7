"""The traces of all engines that serve the wanted LUNs, as one sequence of events.

Engines come and go: their control sockets are looked for again twice a second, and a LUN that moves to
another engine is followed. Knows the files in the run directory and the verb ``trace``; the events are its
caller's.
"""

import logging
import select
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final, Self

from vscsihba.capture.seen import Seen
from vscsihba.control import Incoming, NotListeningError, open_stream
from vscsihba.control.client import NoAnswerError
from vscsihba.engine.owning.locks import RUN, run_directories, run_directory
from vscsihba.errors import HostError
from vscsihba.records import FORMAT, Batches, Kind, Record

log = logging.getLogger(__name__)

DEFAULT_BUFFER: Final = 64 << 20
"""Bytes of records that an engine keeps for a reader."""

_LOOK: Final = 0.5
"""Seconds between two looks for new engines."""

_PATIENCE: Final = 10.0
"""Seconds that an engine has to answer."""

Place = tuple[int, int]
"""A LUN, as the id of the HBA and its number there."""


class _Source:
    """The trace of one engine."""

    def __init__(self, incoming: Incoming) -> None:
        answer: Any = incoming.answer
        if not isinstance(answer, dict) or answer.get("format") != FORMAT:
            incoming.close()
            raise HostError(
                f"{incoming.path} has another format of traces", cure="are both programs of one version?"
            )
        self.hba = int(answer["hba"])
        self.epoch = float(answer["epoch"])
        self.batches = Batches()
        self.device_types: dict[int, int] = {}
        self.incoming = incoming

    def seen(self, record: Record) -> Seen:
        """Return a record as an event, and note which LUNs the engine serves."""
        if record.kind is Kind.LUN:
            self.device_types[record.lun] = record.data[0] & 0x1F if record.data else 0
        device_type = self.device_types.get(record.lun, 0)
        if record.kind is Kind.GONE:
            self.device_types.pop(record.lun, None)
        return Seen(self.hba, record.arrived + self.epoch, record, device_type)


class Feed:
    """The traces of the engines of some LUNs, while the context is entered.

    Args:
        luns: The LUNs; None: all of all HBAs.
        snaplen: Bytes of data of each command, at most.
        buffer: Bytes of records that each engine keeps for this reader.
        run: The run directory.

    Attributes:
        idle: Nothing has arrived within the time of the last call of `events`.

    Raises:
        HostError: An engine refuses.
    """

    def __init__(
        self,
        luns: Collection[Place] | None,
        *,
        snaplen: int,
        buffer: int = DEFAULT_BUFFER,
        run: Path = RUN,
    ) -> None:
        self._luns = None if luns is None else frozenset(luns)
        self._arguments = {"snaplen": snaplen, "buffer": buffer}
        self._run = run
        self._sources: dict[Path, _Source] = {}
        self._poll = select.poll()
        self._looked = float("-inf")
        self._lost_before = 0
        self.idle = True

    def __enter__(self) -> Self:
        self._look()
        return self

    def __exit__(self, *_exception: object) -> None:
        for source in self._sources.values():
            source.incoming.close()
        self._sources.clear()

    @property
    def lost(self) -> int:
        """Commands that were lost until now, since this reader was too slow."""
        return self._lost_before + sum(source.batches.lost for source in self._sources.values())

    @property
    def served(self) -> frozenset[Place]:
        """The LUNs that engines serve now, as far as they are wanted."""
        return frozenset(
            (source.hba, lun) for source in self._sources.values() for lun in source.device_types
        )

    def events(self, seconds: float) -> Iterator[Seen]:
        """Wait up to some seconds for events, and yield those that have arrived.

        Raises:
            HostError: An engine refuses, or sends what is no trace.
        """
        if time.monotonic() - self._looked > _LOOK:
            self._look()
        by_descriptor = {source.incoming.fileno(): path for path, source in self._sources.items()}
        arrived = self._poll.poll(seconds * 1000)
        self.idle = not arrived
        for descriptor, _ in arrived:
            path = by_descriptor[descriptor]
            yield from self._read(path, self._sources[path])

    def _read(self, path: Path, source: _Source) -> Iterator[Seen]:
        received = source.incoming.receive()
        if received is None:
            return
        if not received:
            yield from self._drop(path, source)
            return
        try:
            for record in source.batches.add(received):
                yield source.seen(record)
        except ValueError as error:
            raise HostError(f"{path}: not a trace: {error}") from error

    def _drop(self, path: Path, source: _Source) -> Iterator[Seen]:
        """Forget an engine that has ended; its LUNs are gone."""
        self._lost_before += source.batches.lost
        del self._sources[path]
        self._poll.unregister(source.incoming)
        source.incoming.close()
        now = time.time() - source.epoch
        for lun in tuple(source.device_types):
            yield source.seen(Record(Kind.GONE, lun, now, now))

    def _look(self) -> None:
        """Connect to the engines that are new."""
        self._looked = time.monotonic()
        for path in self._sockets():
            if path in self._sources:
                continue
            hba_id = int(path.parent.name.removeprefix("hba"))
            luns = None if self._luns is None else [lun for hba, lun in self._luns if hba == hba_id]
            try:
                incoming = open_stream(path, "trace", {"luns": luns, **self._arguments}, timeout=_PATIENCE)
            except (NotListeningError, NoAnswerError) as error:  # it was killed, or ends
                log.debug("%s", error)
                continue
            self._sources[path] = _Source(incoming)
            self._poll.register(incoming, select.POLLIN)

    def _sockets(self) -> list[Path]:
        """Return the control sockets of the wanted HBAs, including those of killed engines."""
        if self._luns is None:
            folders = list(run_directories(self._run).values())
        else:
            folders = [run_directory(hba, self._run) for hba in sorted({hba for hba, _ in self._luns})]
        kinds = ("engine-*.control", "program-*.control")
        return sorted(path for folder in folders for kind in kinds for path in folder.glob(kind))
