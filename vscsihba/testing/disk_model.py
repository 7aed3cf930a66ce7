"""A model test for every handler: from outside, a disk is a bytearray, however it works inside.

A test module derives a class from `DiskModel`, whose `document` describes the disk, and gives pytest
the class that `as_tests` makes of it. Each layer of the stack is held to the contract of handlers, too.
"""

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vscsihba.handlers.checked import Checked
from vscsihba.handlers.stack import Document, Stack, build

SETTINGS = hypothesis.settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)

KIB = 1024


def read(disk: Checked, offset: int, length: int) -> bytes:
    """Return bytes of the disk, read into one view that holds other bytes before."""
    room = bytearray(b"\xa5") * length
    disk.read(offset, [memoryview(room)])
    return bytes(room)


def write(disk: Checked, offset: int, data: bytes, *, fua: bool = False) -> None:
    """Write `data` from one read-only view."""
    disk.write(offset, [memoryview(data)], fua=fua)


def scattered(buffer: bytes | bytearray, cuts: list[int]) -> list[memoryview]:
    """Cut a buffer into views at `cuts`, some of which may be empty."""
    whole = memoryview(buffer)
    borders = [0, *sorted(cut % (len(buffer) + 1) for cut in cuts), len(buffer)]
    return [whole[start:end] for start, end in itertools.pairwise(borders)]


# Any byte may be asked for, but blocks and powers of two are where mistakes live.
offsets = st.one_of(
    st.integers(0, 1 << 20),
    st.integers(0, 1 << 11).map(lambda block: block * 512),
    st.integers(0, 16).map(lambda page: page * 64 * KIB),
)
lengths = st.one_of(
    st.integers(1, 9000), st.integers(1, 64).map(lambda block: block * 512), st.integers(1, 300 * KIB)
)
cuts = st.lists(st.integers(0, 300 * KIB), max_size=4)
seeds = st.integers(1, 255)


class DiskModel(RuleBasedStateMachine):
    """A disk beside a bytearray.

    Attributes:
        size: Capacity of the disk that `document` describes, in bytes.
        scratch: Where to make the directory for its files; None for the usual place.
        forgets: Its data are gone when the disk is closed.
        resizes: It can be resized.
        grows_with_zeroes: Blocks that are new after that read as zeroes.
    """

    size = 320 * KIB
    scratch: Path | None = None
    forgets = False
    resizes = True
    grows_with_zeroes = True

    def document(self, directory: Path) -> Document:
        """Describe the disk; its files belong into `directory`."""
        raise NotImplementedError

    def prepare(self, directory: Path) -> bytearray:
        """Make the files that have to be there before the disk opens; return its content then."""
        return bytearray(self.size)

    def __init__(self) -> None:
        super().__init__()
        self.stack: Stack | None = None

    @initialize()
    def start(self) -> None:
        """Make the files and open the disk."""
        # Not before: Hypothesis makes machines that it never starts, nor tears down.
        self.directory = Path(tempfile.mkdtemp(prefix="handler-", dir=self.scratch))
        self.expected = self.prepare(self.directory)
        self.open()
        assert self.disk.geometry.size == len(self.expected)

    def open(self) -> None:
        """Build the stack, with checks between its layers, and open it."""
        self.stack = build(self.document(self.directory), check_between=True)
        self.disk = self.stack.open()

    def teardown(self) -> None:
        """Close the disk and remove its files."""
        if self.stack is not None:
            self.stack.close()
        if hasattr(self, "directory"):
            shutil.rmtree(self.directory)

    def clip(self, offset: int, length: int) -> tuple[int, int]:
        """Fit a range into the disk."""
        offset %= len(self.expected)
        return offset, min(length, len(self.expected) - offset)

    @rule(offset=offsets, length=lengths, cuts=cuts)
    def read(self, offset: int, length: int, cuts: list[int]) -> None:
        """Read a range into scattered views, and compare."""
        offset, length = self.clip(offset, length)
        room = bytearray(b"\xa5") * length
        self.disk.read(offset, scattered(room, cuts))
        assert room == self.expected[offset : offset + length]

    @rule(offset=offsets, length=lengths, seed=seeds, cuts=cuts, fua=st.booleans())
    def write(self, offset: int, length: int, seed: int, cuts: list[int], fua: bool) -> None:
        """Write a range from scattered views."""
        offset, length = self.clip(offset, length)
        data = bytes((seed + at) % 251 for at in range(min(length, 1000))) * (length // 1000 + 1)
        data = data[:length]
        self.disk.write(offset, scattered(data, cuts), fua=fua)
        self.expected[offset : offset + length] = data

    @rule(offset=offsets, length=lengths, may_unmap=st.booleans(), fua=st.booleans())
    def write_zeroes(self, offset: int, length: int, may_unmap: bool, fua: bool) -> None:
        """Write zeroes to a range."""
        offset, length = self.clip(offset, length)
        self.disk.write_zeroes(offset, length, may_unmap=may_unmap, fua=fua)
        self.expected[offset : offset + length] = bytes(length)

    @rule(offset=offsets, length=lengths)
    def unmap(self, offset: int, length: int) -> None:
        """Unmap a range; every byte of it is then zero or as before."""
        if not self.disk.capabilities.unmap:
            return
        offset, length = self.clip(offset, length)
        self.disk.unmap(offset, length)
        after = read(self.disk, offset, length)
        if self.disk.capabilities.unmap_zeroes:
            assert not any(after)
        else:
            before = self.expected[offset : offset + length]
            assert all(new in (0, old) for old, new in zip(before, after, strict=True))
        self.expected[offset : offset + length] = after

    @rule()
    def flush(self) -> None:
        """Flush the disk."""
        self.disk.flush()

    @rule(offset=offsets, length=lengths)
    def extents(self, offset: int, length: int) -> None:
        """Ask for extents; those said to be zero are."""
        offset, length = self.clip(offset, length)
        for status in self.disk.extents(offset, length):
            if status.zero:
                assert not any(self.expected[status.extent.offset : status.extent.end])

    @rule(offset=offsets, length=lengths)
    def inline(self, offset: int, length: int) -> None:
        """Inline verbs that move bytes move the right ones; none has to move any."""
        inline = self.disk.inline
        offset, length = self.clip(offset, length)
        room = bytearray(length)
        if inline.read is not None:
            try:
                done = inline.read([memoryview(room)], offset, inline.read_flags)
            except BlockingIOError:
                done = 0
            assert room[:done] == self.expected[offset : offset + done]
        if inline.write is not None and length <= inline.write_limit:
            data = bytes(reversed(self.expected[offset : offset + length]))
            try:
                done = inline.write([memoryview(data)], offset, inline.write_flags)
            except BlockingIOError:
                done = 0
            self.expected[offset : offset + done] = data[:done]

    @rule(blocks=st.integers(-64, 64))
    def resize(self, blocks: int) -> None:
        """Grow or shrink the disk."""
        if not self.resizes:
            return
        size = max(64 * KIB, len(self.expected) + blocks * 4096)
        self.disk.resize(size)
        before = len(self.expected)
        self.expected = self.expected[:size] + bytes(max(0, size - before))
        if not self.grows_with_zeroes and size > before:
            self.expected[before:] = read(self.disk, before, size - before)

    @rule()
    def reopen(self) -> None:
        """Close and open the disk; its identity stays."""
        assert self.stack is not None
        identity = self.disk.identity
        self.stack.close()
        self.open()
        if self.forgets:
            self.expected = bytearray(self.size)
        else:
            assert self.disk.identity == identity

    @invariant()
    def shows_its_size(self) -> None:
        """Compare the geometry."""
        if self.stack is not None:
            assert self.disk.geometry.size == len(self.expected)

    @rule()
    def compare_all(self) -> None:
        """Compare every byte."""
        assert read(self.disk, 0, len(self.expected)) == self.expected


def as_tests(model: type[DiskModel], *, examples: int = 25) -> Any:  # Hypothesis makes the class
    """Return the test case of a model, for pytest to find."""
    case = model.TestCase
    case.settings = hypothesis.settings(SETTINGS, max_examples=examples)
    return case
