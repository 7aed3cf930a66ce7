"""Log records on standard error, written by a thread of its own: a paused terminal does not stop a disk."""

import json
import logging
import sys
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue


class _AsJson(logging.Formatter):
    """A record as a JSON object in one line; its time is in seconds since 1970."""

    def format(self, record: logging.LogRecord) -> str:
        said = {"level": record.levelname, "logger": record.name, "message": record.getMessage()}
        return json.dumps({"time": round(record.created, 3), **said})


def log_in_background(context: str, level: int = logging.WARNING, *, as_json: bool = False) -> QueueListener:
    """Start to write log records to standard error, in place of the present log handlers.

    Args:
        context: Prefix of each record.
        level: The lowest level that is written.
        as_json: Write JSON objects, one a line.

    Returns:
        The running listener; stop it at the end.
    """
    console = logging.StreamHandler(sys.stderr)
    text = logging.Formatter(f"{context}: %(levelname)s: %(message)s")
    console.setFormatter(_AsJson() if as_json else text)
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    root = logging.getLogger()
    root.handlers = [QueueHandler(records)]
    root.setLevel(level)
    listener = QueueListener(records, console)
    listener.start()
    return listener
