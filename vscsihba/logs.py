"""Log records on standard error, written by a thread of their own: a paused terminal must not stop a disk."""

import logging
import sys
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue


def log_in_background(context: str, level: int = logging.WARNING) -> QueueListener:
    """Begin to write records of `level` and above, each after `context`; return what is to be stopped."""
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter(f"{context}: %(levelname)s: %(message)s"))
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    root = logging.getLogger()
    root.handlers = [QueueHandler(records)]
    root.setLevel(level)
    listener = QueueListener(records, console)
    listener.start()
    return listener
