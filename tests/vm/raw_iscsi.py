"""An iSCSI initiator that writes its PDUs by hand (RFC 7143), for tests that break the rules.

It runs in the test's process. It negotiates no digests unless a test names them, and never logs out.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

HEADER: Final = 48
NOP_OUT: Final = 0x40
COMMAND: Final = 0x01
LOGIN: Final = 0x43
TEXT: Final = 0x04
DATA_OUT: Final = 0x05
FULL_FEATURE: Final = 0x87
"""Flags of a login request: from operational negotiation to the full feature phase."""
NEGOTIATION: Final = 0x04
"""Flags of a login request: operational negotiation goes on."""

_NEGOTIATED: Final = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "InitialR2T": "Yes",
    "ImmediateData": "Yes",
    "MaxBurstLength": "262144",
    "FirstBurstLength": "65536",
    "DefaultTime2Wait": "2",
    "DefaultTime2Retain": "0",
    "MaxOutstandingR2T": "1",
    "MaxConnections": "1",
    "ErrorRecoveryLevel": "0",
}
_NOP_IN: Final = 0x20
_RESPONSE: Final = 0x21
_LOGIN_RESPONSE: Final = 0x23
_DATA_IN: Final = 0x25
_NO_TAG: Final = 0xFFFFFFFF
_WITH_STATUS: Final = 1
_READS, _WRITES, _FINAL, _SIMPLE = 0x40, 0x20, 0x80, 1
_CLONE_NEWNET: Final = 0x40000000


@dataclass(frozen=True)
class Pdu:
    """A PDU of the target."""

    opcode: int
    header: bytes
    data: bytes

    @property
    def login_status(self) -> tuple[int, int]:
        """Class and detail of the status of a login response."""
        return self.header[36], self.header[37]


@dataclass(frozen=True)
class Answer:
    """The status of a SCSI command, its data and its sense key."""

    status: int
    data: bytes = b""
    sense_key: int | None = None


def pdu(
    opcode: int, flags: int = _FINAL, rest: bytes = b"", data: bytes = b"", length: int | None = None
) -> bytes:
    """Return a PDU without digests.

    Args:
        opcode: Byte 0.
        flags: Byte 1.
        rest: Bytes 8 to 47; zeroes are added.
        data: The data segment; it is padded to a multiple of 4 bytes.
        length: Bytes of the data segment as the header tells them, if that is not the truth.
    """
    told = len(data) if length is None else length
    header = bytes([opcode, flags, 0, 0]) + struct.pack(">I", told) + rest.ljust(HEADER - 8, b"\0")
    return header + data + bytes(-len(data) % 4)


def login_request(
    keys: Mapping[str, str] | bytes, flags: int = FULL_FEATURE, *, isid: int = 1, length: int | None = None
) -> bytes:
    """Return the first login request of a new session."""
    if not isinstance(keys, bytes):
        keys = b"".join(f"{key}={value}\0".encode() for key, value in keys.items())
    rest = struct.pack(">BBHHH", 0x80, 0, 0, isid, 0) + struct.pack(">IHHII", 1, 0, 0, 1, 0)
    return pdu(LOGIN, flags, rest, keys, length)


class RawInitiator:
    """A connection to a portal, and the session on it after `login`.

    Args:
        portal: ``ADDRESS:PORT``.
        target: Its iSCSI name.
        name: The initiator's.
        receive_buffer: Bytes that the kernel keeps of data that nobody reads.
        limit: Seconds that it waits for the target.
    """

    def __init__(
        self, portal: str, target: str, name: str, *, receive_buffer: int | None = None, limit: float = 60.0
    ) -> None:
        address, _, port = portal.rpartition(":")
        self.target, self.name = target, name
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(limit)
        self.socket.connect((address, int(port)))
        self._command = 1
        self._status = 0
        self._tag = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def keys(self, **more: str) -> dict[str, str]:
        """Return the keys of a login to a normal session; those that the target would ask for are there."""
        names = {"InitiatorName": self.name, "TargetName": self.target, "SessionType": "Normal"}
        return {**names, **_NEGOTIATED, **more}

    def login(self, *, isid: int = 1, **more: str) -> tuple[int, int]:
        """Log in without authentication, straight to the full feature phase; return class and detail."""
        self.send(login_request(self.keys(**more), isid=isid))
        response = self.receive()
        assert response.opcode == _LOGIN_RESPONSE, response
        (self._command,) = struct.unpack_from(">I", response.header, 28)
        assert response.login_status != (0, 0) or response.header[1] == FULL_FEATURE, response
        return response.login_status

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def receive(self) -> Pdu:
        """Return the next PDU of the target; its pings are answered.

        Raises:
            ConnectionError: The target has closed the connection.
        """
        while True:
            header = self._exactly(HEADER)
            length = int.from_bytes(header[5:8], "big")
            found = Pdu(header[0] & 0x3F, header, self._exactly(length + -length % 4)[:length])
            (status,) = struct.unpack_from(">I", header, 24)
            if found.opcode != _DATA_IN or header[1] & _WITH_STATUS:
                self._status = status + 1
            if found.opcode != _NOP_IN or header[20:24] == b"\xff" * 4:
                return found
            pong = header[8:16] + struct.pack(">I", _NO_TAG) + header[20:24] + self._numbers()
            self.send(pdu(NOP_OUT, _FINAL, pong))

    def _numbers(self) -> bytes:
        return struct.pack(">II", self._command, self._status)

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self.socket.recv(count - len(parts))
            if not part:
                raise ConnectionError("the target has closed the connection")
            parts += part
        return bytes(parts)

    def begin(self, cdb: bytes, *, lun: int = 0, reads: int = 0, data: bytes = b"") -> None:
        """Send a SCSI command that reads so many bytes, or writes `data`, and do not wait for it."""
        self._tag += 1
        flags = _FINAL | _SIMPLE | (_READS if reads else 0) | (_WRITES if data else 0)
        rest = struct.pack(">BBHIII", 0, lun, 0, 0, self._tag, reads or len(data)) + self._numbers()
        self.send(pdu(COMMAND, flags, rest + cdb.ljust(16, b"\0"), data))
        self._command += 1

    def perform(self, cdb: bytes, *, lun: int = 0, reads: int = 0, data: bytes = b"") -> Answer:
        """Send a SCSI command and return its answer; no other may be under way."""
        self.begin(cdb, lun=lun, reads=reads, data=data)
        found = bytearray()
        while True:
            answer = self.receive()
            assert answer.opcode in (_DATA_IN, _RESPONSE), answer
            if answer.opcode == _RESPONSE:
                sense = answer.data[2:]
                key = sense[2 if sense[0] & 0x7E == 0x70 else 1] & 0x0F if sense else None
                return Answer(answer.header[3], bytes(found), key)
            found += answer.data
            if answer.header[1] & _WITH_STATUS:
                return Answer(answer.header[3], bytes(found))

    def wait_ready(self, lun: int = 0) -> None:
        """Take the unit attentions of a LUN."""
        for _ in range(16):
            if self.perform(bytes(6), lun=lun).status == 0:
                return
        raise AssertionError(f"LUN {lun} does not become ready")


def read_10(block: int, count: int) -> bytes:
    """Return a READ(10)."""
    return struct.pack(">BBIBHB", 0x28, 0, block, 0, count, 0)


def write_10(block: int, count: int) -> bytes:
    """Return a WRITE(10)."""
    return struct.pack(">BBIBHB", 0x2A, 0, block, 0, count, 0)


@contextmanager
def inside(namespace: Path) -> Iterator[None]:
    """Let this thread make its sockets in another network namespace."""
    library = ctypes.CDLL(None, use_errno=True)

    def enter(path: Path) -> None:
        with path.open("rb") as file:
            if library.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))

    with Path("/proc/thread-self/ns/net").open("rb") as before:
        enter(namespace)
        try:
            yield
        finally:
            library.setns(before.fileno(), _CLONE_NEWNET)
