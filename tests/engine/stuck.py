"""A handler with writes that wait for the test, written into a file that a stack can name."""

import threading
from pathlib import Path

from vscsihba.engine.owning.owned_lun import OwnedLun
from vscsihba.handlers.stack import Document

_SOURCE = """
import threading
from vscsihba.block import Geometry
from vscsihba.handlers.base import Handler

class Stuck(Handler):
    name = "stuck"
    gate = threading.Event()
    writing = threading.Event()
    size = 1 << 20

    @property
    def geometry(self):
        return Geometry(self.size)

    def read(self, offset, views):
        for view in views:
            view[:] = bytes(len(view))

    def write(self, offset, views, *, fua=False):
        Stuck.writing.set()
        assert Stuck.gate.wait(60)

    def resize(self, size):
        self.size = size
"""


def stuck_document(folder: Path) -> Document:
    """Return the document of a disk of 1 MiB; its handler is written into `folder`."""
    path = folder / "stuck.py"
    path.write_text(_SOURCE)
    return {"handler": str(path)}


def gate_of(owned: OwnedLun) -> tuple[threading.Event, threading.Event]:
    """Return the event that lets writes of such a disk continue, and the event that one waits."""
    assert owned.stack is not None
    handler = owned.stack.layers[-1]
    return handler.gate, handler.writing  # type: ignore[attr-defined]
