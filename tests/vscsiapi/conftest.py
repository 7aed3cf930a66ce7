"""A registered HBA inside this process, with its initiator."""

import ctypes
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from vscsihba import vscsiapi as api
from vscsihba.hba import LoopbackPort
from vscsihba.loopback import Answer, Loopback

if TYPE_CHECKING:
    Pointer = ctypes._Pointer[ctypes.c_ubyte]


def pointer_to(what: "ctypes.Array[ctypes.c_ubyte] | int") -> "Pointer":
    """Return a pointer to an array, which it keeps alive, or to an address."""
    return ctypes.cast(what, ctypes.POINTER(ctypes.c_ubyte))


class Host:
    """A session of the calls, and its initiator.

    Args:
        sizes: Sizes of its LUNs.
        wait: Seconds that a get waits.

    Attributes:
        task: The structure from the registration.
    """

    def __init__(self, sizes: dict[int, int] | None = None, wait: float | None = 0) -> None:
        self.port = LoopbackPort()
        task = api.register_scsi_host("/dev/vscsihba0", sizes=sizes or "1MiB", port=self.port, wait=wait)
        assert task is not None, api.last_error()
        self.task = task

    @property
    def loopback(self) -> Loopback:
        return self.port.loopbacks[0]

    def send(self, cdb: bytes, *, data_out: bytes = b"", data_in: int = 0) -> int:
        """Queue a command, get it into `task`, and return the initiator's id for it."""
        sent = self.loopback.submit(cdb, data_out=data_out, data_in=data_in)
        assert api.get_scsi_task(self.task) == api.Code.OK
        return sent

    def answer(self, sent: int) -> Answer:
        return self.loopback.wait(sent)


@pytest.fixture
def host() -> Iterator[Host]:
    """A host with one LUN of 1 MiB."""
    made = Host()
    yield made
    api.unregister_scsi_host(made.task)
