"""A server that is killed at any line, and an initiator and a kernel that outlive it.

Run as a program with the name of a scenario: it lets a server die at its first line, has a
successor finish, and checks the responses that the initiator got; then the same with the second
line, and so on, until a server lives long enough to serve everything. With ``twice``, the
successor is killed too, at each line of its recovery.

With ``forked``, a server to be killed is a process that dies of SIGKILL: ring, medium and journal are shared
memory, and all else is lost. Otherwise an exception ends it, which no code of the server catches: the
effect is the same, in a tenth of the time.
"""

import contextlib
import mmap
import os
import random
import signal
import socket
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.tcmu.killing import STEPPED, Killed, raise_killed, run_lines
from vscsihba.errors import DeviceGoneError
from vscsihba.loopback import Answer, Loopback
from vscsihba.tcmu import abi
from vscsihba.tcmu.journal import VOID, Journal
from vscsihba.tcmu.journal_file import JournalFile
from vscsihba.tcmu.record import DONE, SIZE, UNIT, UNITS

READ, WRITE, SWAP = 0x28, 0x2A, 0x89
GOOD, CHECK_CONDITION, MAYBE, ABORTED = 0, 2, 0x22, 0x40
SPACE = 16384
LENGTHS = (512, 0, 9000, 4096, 1)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Commands, and the order of their completion.

    Attributes:
        commands: One letter each (read, write, swap; a capital takes the fast path; t: task management),
            a blank before the commands that are sent after a response.
        order: The open commands that are completed in a round.
        advance: Commands served before, to begin near the end of the ring.
    """

    commands: str
    order: str
    advance: int


SCENARIOS = {
    "in-order": Scenario("rws wsr", "all", 28),
    "reversed": Scenario("rwsr sw", "reversed", 15),
    "short-cut": Scenario("RW WR WsRW RW", "all", 27),
    "held-back": Scenario("srWw RWsW rRw", "newest", 27),
    "small": Scenario("srW w", "newest", 28),
    "management": Scenario("rwst WtRs", "newest", 28),
}


class Port(Loopback):
    """A loopback that sends its kicks to the world, which may be another process."""

    world: "World"
    wire: socket.socket
    away = False
    """Whether the world is in another process."""

    def consume(self) -> None:
        if not self.away:
            tracer = sys.gettrace()
            sys.settrace(None)
            self.world.kicked()
            sys.settrace(tracer)
            return
        self.wire.send(b"k")
        if not self.wire.recv(1):
            raise DeviceGoneError("the kernel has gone")


class Server:
    """A server: recovers, serves all commands, and ends."""

    def __init__(self, port: Port, medium: mmap.mmap, scenario: Scenario) -> None:
        self.transport, self.medium, self.scenario = port.transport, medium, scenario
        self.open: dict[int, tuple[bytes, list[memoryview]]] = {}

    def live(self) -> None:
        transport = self.transport
        transport.attach()
        for command in transport.recover():
            if command.begun:
                transport.complete(command.tag, MAYBE)
            else:
                self.accept(command.tag, command.cdb, command.views)
        transport.publish()
        while transport.pending() or self.open:
            transport.drain(self.cut, self.accept)
            for request in transport.take_management():
                for tag in request.tags:
                    del self.open[tag]
                    transport.complete(tag, ABORTED)
            for tag in self.choose():
                self.execute(tag, *self.open.pop(tag))
            transport.publish()

    def choose(self) -> list[int]:
        tags = list(self.open)
        few = {
            "all": tags,
            "reversed": tags[::-1],
            "newest": tags[:0:-1],
        }[self.scenario.order]
        return few or ([] if self.transport.pending() else tags)

    def cut(self, cdb_at: int, views: list[memoryview], _length: int, _cmd_id: int) -> bool:
        opcode, number = self.transport.memory[cdb_at : cdb_at + 2]
        if not is_cut(self.scenario, number):
            return False
        self.move(opcode, number, views)
        return True

    def accept(self, tag: int, cdb: bytes, views: list[memoryview]) -> None:
        self.open[tag] = cdb, views

    def execute(self, tag: int, cdb: bytes, views: list[memoryview]) -> None:
        opcode, number = cdb[:2]
        if opcode == SWAP:
            self.transport.begun(tag)
            (count,) = struct.unpack_from("=Q", self.medium)
            struct.pack_into("=Q", self.medium, 0, count + 1)
            self.transport.complete(tag, GOOD)
        elif number % 7 == 3:
            self.transport.complete(tag, CHECK_CONDITION, bytes((0x70, number)))
        else:
            self.move(opcode, number, views)
            self.transport.complete(tag, GOOD, data_in=sum(map(len, views)) if opcode == READ else None)

    def move(self, opcode: int, number: int, views: list[memoryview]) -> None:
        at = (number + 1) * SPACE
        if sum(map(len, views)) != len(contents(number)):
            raise AssertionError(f"command {number} came with {len(views)} views")
        for view in views:
            if opcode == READ:
                view[:] = self.medium[at : at + len(view)]
            else:
                self.medium[at : at + len(view)] = bytes(view)
            at += len(view)


def letters(scenario: Scenario) -> str:
    """Return the letters of SCSI commands."""
    return scenario.commands.replace(" ", "").replace("t", "")


def is_cut(scenario: Scenario, number: int) -> bool:
    """Return whether a command takes the fast path."""
    return letters(scenario)[number].isupper()


def contents(number: int) -> bytes:
    """Return the data of command `number`."""
    return random.Random(number).randbytes(LENGTHS[number % len(LENGTHS)])


class World:
    """Initiator, kernel, medium and journal: everything that outlives a server."""

    def __init__(self, scenario: Scenario, folder: Path, *, forked: bool) -> None:
        self.scenario = scenario
        self.forked = forked
        self.writing = False
        """Whether a server died while it wrote a completion into a slot."""
        self.port = Port(ring_size=3968, blocks=64)
        self.port.world = self
        self.port.kernel._free = list(range(0, 64, 3))  # no two neighbours: as many iovecs as blocks
        self._advance()
        self.port.journal, self.port.identity = folder / "journal", "world"
        with opened_journal(self) as journal:
            journal.restart(VOID)
        self.medium = mmap.mmap(-1, SPACE * (len(letters(scenario)) + 1))
        for number, letter in enumerate(letters(scenario)):
            if letter in "rR":
                data = contents(number)
                self.medium[(number + 1) * SPACE : (number + 1) * SPACE + len(data)] = data
        self.waves = scenario.commands.split()
        self.sent = 0
        self.numbers: dict[int, int] = {}
        self.told: dict[int, Answer] = {}
        self.submit_wave()

    def _advance(self) -> None:
        for _ in range(self.scenario.advance):
            self.port.submit(bytes(10))
            self.port.transport.drain(lambda *_: True, lambda *_: None)
            tail = self.port.memory[abi.CMD_HEAD_OFFSET : abi.CMD_HEAD_OFFSET + 4]
            self.port.memory[abi.CMD_TAIL_OFFSET : abi.CMD_TAIL_OFFSET + 4] = tail
            self.port.kernel.consume()

    def submit_wave(self) -> None:
        for letter in self.waves.pop(0) if self.waves else "":
            if letter == "t":
                self.port.manage(abi.TCMU_TMR_ABORT_TASK_SET, tuple(self.numbers))
                continue
            number, self.sent = self.sent, self.sent + 1
            opcode = {"r": READ, "w": WRITE, "s": SWAP}[letter.lower()]
            cdb = bytes((opcode, number)).ljust((6, 10, 16)[number % 3], b"\0")
            data = contents(number)
            self.port.kernel._next_id = 1  # the kernel uses the lowest free one
            cmd_id = self.port.submit(
                cdb,
                data_out=data if opcode == WRITE else b"",
                data_in=len(data) if opcode == READ else 0,
            )
            self.numbers[cmd_id] = number

    def consume(self) -> None:
        """Consume completions as the kernel does, which raises over an unknown id."""
        for cmd_id, answer in self.port.kernel.consume().items():
            self.told[self.numbers.pop(cmd_id)] = answer

    def run_server(self, lines: int | None) -> bool:
        """Run a server for so many lines; return whether it ended by itself."""
        ended = self._run_here(lines) if lines is None or not self.forked else self._run_forked(lines)
        self.port.kernel.release()
        return ended

    def _run_here(self, lines: int | None) -> bool:
        try:
            live(self, lines)
        except Killed as end:
            frames = traceback.extract_tb(end.__traceback__)
            self.writing = any("_SLOT.pack_into" in str(frame.line) for frame in frames)
            return False
        return True

    def _run_forked(self, lines: int | None) -> bool:
        ours, self.port.wire = socket.socketpair()
        child = os.fork()
        if not child:
            ours.close()
            be_child(self, lines)
        self.port.wire.close()
        with ours, contextlib.suppress(ConnectionError):
            while ours.recv(1):
                self.kicked()
                ours.send(b"k")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in (0, -signal.SIGKILL):
            raise AssertionError(f"the server ended with {status}")
        return status == 0

    def kicked(self) -> None:
        """Handle a kick."""
        self.consume()
        self.submit_wave()

    def check(self) -> None:
        """Compare the responses with the commands and with the medium."""
        good = maybe = 0
        if sorted(self.told) != list(range(len(letters(self.scenario)))) or self.waves:
            raise AssertionError(f"answered were {sorted(self.told)}, left is {self.waves}")
        for number, letter in enumerate(letters(self.scenario)):
            answer, data = self.told[number], contents(number)
            at = (number + 1) * SPACE
            if letter == "s":
                good += answer.status == GOOD
                maybe += answer.status == MAYBE
                fair = answer.status in (GOOD, MAYBE, ABORTED)
            elif number % 7 == 3 and letter.islower():
                fair = (answer.status, answer.sense[:2]) == (CHECK_CONDITION, bytes((0x70, number)))
            elif letter in "rR":
                fair = (answer.status, answer.data, answer.residual) == (GOOD, data, 0)
            else:
                fair = answer.status == GOOD and self.medium[at : at + len(data)] == data
            if not fair and not ("t" in self.scenario.commands and answer.status == ABORTED):
                raise AssertionError(f"command {number} ({letter}) was told {answer}")
        (count,) = struct.unpack_from("=Q", self.medium)
        if not good <= count <= good + maybe:
            raise AssertionError(f"counted {count}, told {good} done and {maybe} perhaps")
        self.check_empty()

    def check_empty(self) -> None:
        kernel = self.port.kernel
        if kernel.outstanding or kernel.broken or kernel._cleaned != kernel._head:
            raise AssertionError("the ring is not empty")
        with opened_journal(self) as journal:
            if journal.load() or journal.position != kernel._off + kernel._head:
                raise AssertionError("the journal is not empty")

    def tear(self, seed: int) -> None:
        """Overwrite unfinished multi-byte stores with noise: a successor must not read them."""
        noise = random.Random(seed).randbytes
        with opened_journal(self) as journal:
            states, memory = journal._states, journal._memory
            taken = {unit for record in journal.load() for unit in record.units}
            for unit in range(16):
                begin = SIZE - (UNITS - unit) * UNIT
                if unit not in taken:
                    memory[begin : begin + UNIT] = noise(UNIT)
                elif states[unit] != DONE:
                    memory[begin + 32 : begin + 144] = noise(112)  # the place of the completion
            self.tear_slot(journal, noise(108))

    def tear_slot(self, journal: Journal, noise: bytes) -> None:
        """Overwrite the oldest open slot with noise if a completion was being written into it."""
        kernel = self.port.kernel
        if journal.is_void:
            return
        start = journal.position - kernel._off
        while start != kernel._head:
            at = kernel._off + start
            len_op = kernel._words[at >> 2]
            start = (start + (len_op & ~7)) % kernel._size
            if len_op & 7 == abi.TCMU_OP_CMD:
                if kernel._off + start == journal.intent or self.writing:
                    first = at + 4 + 4 * (noise[0] & 1)  # with the old cmd_id, or without
                    kernel.memory[first : at + 112] = noise[first - at - 4 :]
                return

    def close(self) -> None:
        self.port.close()
        self.medium.close()


class opened_journal:
    """The journal of a world, for a time without a server."""

    def __init__(self, world: World) -> None:
        assert world.port.journal is not None
        self.file = JournalFile(world.port.journal, world.port.identity)

    def __enter__(self) -> Journal:
        return self.file.journal

    def __exit__(self, *_: object) -> None:
        self.file.close()


def live(world: World, lines: int | None, die: Callable[[], NoReturn] = raise_killed) -> None:
    """Run a server for so many lines, or to its end."""
    server = Server(world.port, world.medium, world.scenario)
    run_lines(server.live, lines, die, stepped=STEPPED | {__file__})


def be_child(world: World, lines: int | None) -> NoReturn:
    """Run a server in a child process."""

    def die() -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")

    status = 1
    world.port.away = True
    try:
        live(world, lines, die)
        status = 0
    except Exception as error:  # noqa: BLE001 - this process ends here, whatever it was
        sys.excepthook(type(error), error, error.__traceback__)
    os._exit(status)


def kill_once(
    scenario: Scenario, folder: Path, lines: int, then: int | None = None, *, forked: bool
) -> tuple[bool, bool]:
    """Kill a server after so many lines, perhaps a second one too; return which ended by themselves."""
    world = World(scenario, folder, forked=forked)
    try:
        first = world.run_server(lines)
        second = True
        if not first:
            world.tear(lines)
            if lines % 2:
                world.consume()  # the kernel may read the tail at any time
            if then is not None:
                second = world.run_server(then)
                world.tear(lines + then)
        world.run_server(None)
        world.check()
    finally:
        world.close()
    return first, second


def campaign(scenario: Scenario, folder: Path, *, twice: bool, forked: bool) -> Iterator[tuple[int, ...]]:
    """Kill at every line; with `twice`, again at every fourth line of some recoveries."""
    lines, over = 0, False
    while not over:
        if not twice:
            yield (lines,)
            over, _ = kill_once(scenario, folder, lines, forked=forked)
            lines += 1
            continue
        for then in range(lines % 4, 260, 4):
            yield lines, then
            over, done = kill_once(scenario, folder, lines, then, forked=forked)
            if over or done:
                break
        lines += 59


def main() -> None:
    """Run one scenario; print each line at which a server was killed, then their number."""
    name, *how = sys.argv[1:]
    kills = 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for at in campaign(SCENARIOS[name], Path(folder), twice="twice" in how, forked="forked" in how):
            print("killed after", *at)
            kills += 1
    print(kills)


if __name__ == "__main__":
    main()
