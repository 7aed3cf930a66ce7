"""Initiators that break the rules, and what the others notice of it: nothing.

One target with three LUNs stands for all tests of this file. While an initiator attacks it, another one
(open-iscsi) writes to a LUN of its own and verifies, the service answers, and changes end in time.
"""

import os
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.polling import wait_until
from tests.vm import raw_iscsi, sticking
from tests.vm.daemon import Service, vscsihba
from tests.vm.exported import HOST, NAME, PORTAL, document
from tests.vm.fio import Fio
from tests.vm.initiator import Initiator
from tests.vm.raw_iscsi import RawInitiator, login_request, pdu, read_10, write_10
from tests.vm.shell import SOAK
from tests.vm.target import kernel_messages

SECOND: Final = "127.0.0.1:3261"
ATTACKER: Final = "iqn.2026-11.example:attacker"
STUCK, SOUND, BUSY = 0, 1, 2
"""LUNs: its storage hangs at will; that of the sound initiator; that of the crowd."""
SESSIONS: Final = 10
SEEDS: Final = 200 if SOAK else 10
KiB: Final = 1 << 10
ANSWER_LIMIT: Final = 30.0
CHANGE_LIMIT: Final = 60.0
OOPS: Final = ("BUG:", "Oops", "Call Trace", "WARNING:", "refcount_t", "blocked for more than")


def crowd(number: int) -> str:
    return f"iqn.2026-11.example:crowd{number}"


@dataclass
class Siege:
    """A target with a sound initiator that is logged in.

    Attributes:
        service: The service that keeps the target.
        wanted: The document of the target.
        disk: The disk of the sound initiator.
        flag: While this file exists, the storage of LUN `STUCK` answers no write.
    """

    service: Service
    wanted: dict[str, Any]
    disk: Path
    flag: Path

    @contextmanager
    def others_go_on(self) -> Iterator[None]:
        """Attack in this context: the sound initiator and the service must not notice."""
        fio = Fio([self.disk], size="1m")
        try:
            yield
            self.answers()
        finally:
            fio.finish()
        said = kernel_messages()
        assert not [word for word in OOPS if word in said], said

    def answers(self) -> None:
        """Ask the service for its status, within the time of a healthy machine."""
        begin = time.monotonic()
        (shown,) = self.service.ask("status")["exports"]
        assert time.monotonic() - begin < ANSWER_LIMIT
        assert HOST in {session["initiator"] for session in shown["sessions"]}

    def apply(self, **export: Any) -> None:
        """Apply the document with other parts of the export, by force; it must end in time."""
        changed = {**self.wanted, "exports": [{**self.wanted["exports"][0], **export}]}
        begin = time.monotonic()
        vscsihba("apply", self.service.document(changed), "--force")
        assert time.monotonic() - begin < CHANGE_LIMIT

    def attacker(self, portal: str = PORTAL, **options: Any) -> RawInitiator:
        """Return a connection of the attacker, without a session."""
        return RawInitiator(portal, NAME, ATTACKER, **options)


@pytest.fixture(scope="module")
def siege(standing: Service) -> Iterator[Siege]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("VSCSIHBA_SCRATCH")) as name:
        folder = Path(name)
        flag = folder / "flag"
        wanted = document(folder, "stuck", "sound", "busy", portals=[PORTAL, SECOND])
        wanted["exports"][0]["initiators"] = [
            {"name": ATTACKER, "luns": [STUCK, BUSY]},
            *({"name": crowd(number), "luns": [BUSY]} for number in range(SESSIONS)),
            {"name": HOST, "luns": [SOUND]},
        ]
        wanted["backstores"]["stuck"] = {
            "handler": f"{sticking.__file__}:sticking",
            "flag": str(flag),
            "verbs": ["write"],
            "next": wanted["backstores"]["stuck"],
        }
        vscsihba("apply", standing.document(wanted))
        with Initiator(HOST, folder) as initiator:
            initiator.record(NAME, PORTAL)
            initiator.login(NAME, PORTAL)
            yield Siege(standing, wanted, initiator.disk(NAME, PORTAL, SOUND), flag)
            flag.unlink(missing_ok=True)
        standing.ask("clear", force=True)


def test_logins_that_never_end(siege: Siege) -> None:
    half = login_request({"InitiatorName": ATTACKER, "TargetName": NAME})
    with siege.others_go_on(), ExitStack() as connections:
        for number in range(60):
            connection = connections.enter_context(siege.attacker())
            connection.send(half[: number % 3 * 30])
        with siege.attacker(SECOND) as other:
            assert other.login() == (0, 0), "the other portal does not wait"
        siege.answers()
    with siege.attacker() as later:
        assert later.login() == (0, 0)


def test_a_flood_of_logins(siege: Siege) -> None:
    refused = (2, 2)  # authorization failure
    with siege.others_go_on():
        for number in range(200):
            with siege.attacker() as connection:
                connection.name = ATTACKER if number % 2 else f"iqn.2026-11.example:foreign{number}"
                assert connection.login(isid=number) == ((0, 0) if number % 2 else refused)


def logins() -> Iterator[tuple[str, bytes]]:
    """Yield bytes that are sent instead of a login, with a name."""
    keys = {"InitiatorName": ATTACKER, "TargetName": NAME, "SessionType": "Normal"}
    many = "".join(f"X-key-{number}=value\0" for number in range(10_000)).encode()
    yield "10,000 keys", login_request(many)
    yield "more data than a login has", login_request(many[:8192], length=0xFFFFFF)
    yield "a name that does not end", login_request(b"InitiatorName=" + b"x" * 8000)
    yield "no name", login_request({"TargetName": NAME})
    yield "a key without a value", login_request(b"InitiatorName\0=\0==\0\0\0")
    yield "a target of another name", login_request({**keys, "TargetName": f"{NAME}x"})
    yield "stages that do not exist", login_request(keys, 0xBB)
    yield "a session that does not exist", login_request(keys)[:14] + b"\x77\x77" + login_request(keys)[16:]
    yield "a command", pdu(raw_iscsi.COMMAND, 0xC1, bytes(40))
    yield "a PDU that does not exist", pdu(0x1E)
    yield "HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 4


def garbage() -> Iterator[tuple[str, bytes]]:
    """Yield bytes that are sent in a session, with a name."""
    for opcode in (0x07, 0x1E, 0x20, 0x25, 0x3E):
        yield f"opcode {opcode:#x}", pdu(opcode)
    yield "a data segment of 16 MiB", pdu(raw_iscsi.COMMAND, 0xA1, bytes(40), length=0xFFFFFF)
    yield "additional headers that do not come", b"\x01\xc1\0\0\xff" + bytes(43)
    yield "half a header", pdu(raw_iscsi.COMMAND)[:20]
    yield "data for no command", pdu(raw_iscsi.DATA_OUT, 0x80, bytes(8) + b"\0\0\x99\x99" * 2, b"x" * 512)
    yield "a text request of nothing", pdu(raw_iscsi.TEXT, 0x80, bytes(40), b"\xff" * 1024)
    yield "a ping of 1 MiB", pdu(raw_iscsi.NOP_OUT, 0x80, bytes(40), length=1 << 20) + bytes(1 << 20)
    yield "a login in a session", login_request({"InitiatorName": ATTACKER})
    yield "an old command number", pdu(raw_iscsi.COMMAND, 0x81, bytes(16) + b"\xf0" * 4 + bytes(20))
    for seed in range(SEEDS):
        source = random.Random(seed)
        text = source.randbytes(48 * source.randrange(1, 40))
        yield f"random bytes {seed}", text
        yield f"random bytes {seed} after an opcode", bytes([source.choice((1, 2, 4, 5, 6, 0x10))]) + text


def send_and_look(connection: RawInitiator, data: bytes) -> None:
    """Send bytes; the target may answer, close the connection, or wait for more."""
    connection.socket.settimeout(0.1)
    with suppress(OSError):
        connection.send(data)
        for _ in range(8):
            connection.receive()


def test_garbage_instead_of_a_login(siege: Siege) -> None:
    with siege.others_go_on():
        for name, data in logins():
            with siege.attacker() as connection:
                send_and_look(connection, data)
            with siege.attacker() as connection:
                assert connection.login() == (0, 0), f"after {name}"


def test_garbage_in_a_session(siege: Siege) -> None:
    with siege.others_go_on():
        for name, data in garbage():
            with siege.attacker() as connection:
                assert connection.login() == (0, 0), f"before {name}"
                send_and_look(connection, data)
        with siege.attacker() as connection:
            assert connection.login(HeaderDigest="CRC32C", DataDigest="CRC32C") == (0, 0)
            send_and_look(connection, pdu(raw_iscsi.COMMAND, 0x81) + b"nope")
        with siege.attacker() as connection:
            assert connection.login() == (0, 0)
            connection.wait_ready(BUSY)


def test_an_initiator_that_stops_reading_loses_its_lun(siege: Siege) -> None:
    with siege.others_go_on(), siege.attacker(receive_buffer=4 * KiB) as connection:
        assert connection.login(MaxRecvDataSegmentLength="262144") == (0, 0)
        connection.wait_ready(BUSY)
        for number in range(32):
            connection.begin(read_10(number * 512, 512), lun=BUSY, reads=256 * KiB)
        siege.answers()
        without = [lun for lun in siege.wanted["exports"][0]["luns"] if lun["lun"] != BUSY]
        entries = [
            {**entry, "luns": [lun for lun in entry["luns"] if lun != BUSY]}
            for entry in siege.wanted["exports"][0]["initiators"]
        ]
        siege.apply(luns=without, initiators=entries)
        siege.apply()


def test_a_storage_that_hangs_lets_its_initiator_and_the_others_log_in(siege: Siege) -> None:
    with siege.others_go_on(), ExitStack() as stack:
        connection = stack.enter_context(siege.attacker())
        hold(siege, connection)
        stack.callback(siege.flag.unlink)
        begin = time.monotonic()
        again = stack.enter_context(siege.attacker())
        assert again.login() == (0, 0), "the kernel ends the session that it replaces"
        other = stack.enter_context(siege.attacker())
        other.name = crowd(0)
        assert other.login() == (0, 0)
        assert time.monotonic() - begin < CHANGE_LIMIT


def hold(siege: Siege, connection: RawInitiator) -> None:
    """Log in and send a write to storage that hangs."""
    assert connection.login() == (0, 0)
    connection.wait_ready(STUCK)
    sticking.holding(siege.flag).unlink(missing_ok=True)
    siege.flag.touch()
    connection.begin(write_10(0, 1), lun=STUCK, data=bytes(512))
    wait_until(sticking.holding(siege.flag).exists, "a write that is held", limit=60)
