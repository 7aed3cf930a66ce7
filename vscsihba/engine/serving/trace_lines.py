"""Finished commands as text for a program that prints them itself, such as ``vscsitarget -v``."""

from vscsihba import scsi
from vscsihba.records import Kind, Record
from vscsihba.trace import TraceRecord, TraceSink


class TraceLines:
    """An observer (`vscsihba.engine.serving.tap.Observer`) that decodes each command at once.

    Args:
        sink: Takes the decoded commands, on the serving threads; it must not block.
    """

    snaplen = 0

    def __init__(self, sink: TraceSink) -> None:
        self._sink = sink

    def admits(self) -> bool:
        """Return True: the sink takes all records."""
        return True

    def lose(self) -> None:
        """Do nothing: all records are taken."""

    def take(self, record: bytes) -> None:
        """Decode a command, and hand it to the sink."""
        found = Record.unpack(record)
        if found.kind is not Kind.COMMAND:
            return
        name, detail = scsi.describe(found.cdb)
        self._sink(
            TraceRecord(
                lun=found.lun,
                name=name,
                cdb=found.cdb,
                detail=detail,
                status=scsi.status_name(found.status),
                sense=scsi.describe_sense(found.sense) if found.sense else "",
                length=found.length,
                seconds=found.seconds,
            )
        )
