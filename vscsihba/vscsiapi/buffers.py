"""The memory behind `request_buffer`: given out here, and only touched if it was.

A structure is the caller's to write into, its pointer included. So a pointer is never followed
because it is there: it must lie, with its length, inside a buffer that was given out.
"""

import ctypes
from weakref import finalize

from vscsihba.vscsiapi.task import user_scsitap_task

SIZE = 1 << 20
"""Bytes of a buffer: the largest command that Linux sends here."""


class Buffers:
    """The buffers of one session.

    A buffer lives as long as the structure that it was given to, whatever becomes of the pointer or
    the session: nobody who has the structure has a pointer into freed memory.
    """

    def __init__(self) -> None:
        self._given: dict[int, ctypes.Array[ctypes.c_ubyte]] = {}

    def give(self, task: user_scsitap_task, size: int = SIZE) -> None:
        """Let `task` point to a new buffer of at least `size` bytes."""
        made = (ctypes.c_ubyte * max(size, SIZE))()
        address = ctypes.addressof(made)
        self._given[address] = made
        finalize(_owner(task), self._given.pop, address).atexit = False
        task.request_buffer = ctypes.cast(address, ctypes.POINTER(ctypes.c_ubyte))

    def memory(self, task: user_scsitap_task) -> memoryview | None:
        """Return the bytes from `request_buffer` to the end of the buffer that it points into.

        None if it points into none that was given out here; empty if it is a null pointer.
        """
        if not task.request_buffer:
            return memoryview(b"")
        address = ctypes.addressof(task.request_buffer.contents)
        for start in list(self._given):
            array = self._given.get(start)
            if array is not None and start <= address < start + len(array):
                return memoryview(array).cast("B")[address - start :]
        return None


def _owner(task: user_scsitap_task) -> object:
    """Return the object whose memory a structure is in: itself, or an array that it is one of."""
    owner: object = task
    while (base := getattr(owner, "_b_base_", None)) is not None:
        owner = base
    return owner
