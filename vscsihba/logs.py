"""Log records on standard error, written by a thread of their own: a paused terminal must not stop a disk."""

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
    """Begin to write records, in the place of those who did before.

    Args:
        context: What stands before each record.
        level: The least that is written.
        as_json: Write JSON objects, one a line.

    Returns:
        What is to be stopped.
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
