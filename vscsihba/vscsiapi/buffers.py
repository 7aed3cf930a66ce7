"""The memory behind `request_buffer`: a pointer is followed only into buffers of the session.

The caller may write anything into a structure, its pointer included. So pointer and length must lie inside
a buffer that the session has given to a structure.
"""

import ctypes
from weakref import finalize

from vscsihba.vscsiapi.task import user_scsitap_task

SIZE = 1 << 20
"""Bytes of a buffer: the largest transfer of a command of Linux."""


class Buffers:
    """The buffers of one session.

    A buffer lives as long as its structure, even if the pointer is changed or the session ends: a structure
    never has a pointer into freed memory.
    """

    def __init__(self) -> None:
        self._given: dict[int, ctypes.Array[ctypes.c_ubyte]] = {}

    def give(self, task: user_scsitap_task, size: int = SIZE) -> None:
        """Give `task` a new buffer of at least `size` bytes."""
        made = (ctypes.c_ubyte * max(size, SIZE))()
        address = ctypes.addressof(made)
        self._given[address] = made
        finalize(_owner(task), self._given.pop, address).atexit = False
        task.request_buffer = ctypes.cast(address, ctypes.POINTER(ctypes.c_ubyte))

    def memory(self, task: user_scsitap_task) -> memoryview | None:
        """Return the bytes from `request_buffer` to the end of the buffer that it points into.

        None if it points into no buffer of this session; empty if it is a null pointer.
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
    """Return the object that has a structure's memory: the structure, or the array that it belongs to."""
    owner: object = task
    while (base := getattr(owner, "_b_base_", None)) is not None:
        owner = base
    return owner
