"""The write log of `qemu`: after a kill at any call it has the changes that no flush has covered."""

from pathlib import Path
from unittest import mock

from tests.sim.acts import each_fault
from vscsihba.handlers.qemu.write_log import Change, WriteLog
from vscsihba.handlers.shared import tmpfs_store

BLOCK, BLOCKS = 512, 24


class Ledger:
    """The changes of one run, and the contents that a replay may give each block."""

    def __init__(self) -> None:
        self.may_be = [frozenset((b"",)) for _ in range(BLOCKS)]

    def change(self, change: Change, mark: bytes, *, acknowledged: bool | None) -> None:
        """Note a change, which was acknowledged, refused, or may be in the log if that is not known."""
        first = change.offset // BLOCK
        for block in range(first, first + change.length // BLOCK):
            if acknowledged is not False:
                before = frozenset[bytes]() if acknowledged else self.may_be[block]
                self.may_be[block] = before | {mark}


def use(ledger: Ledger) -> None:
    """Write, flush, and write around the end of the ring."""
    log = WriteLog("image", about=b"image", size=8 * BLOCK)
    steps = [(0, 3), (2, 2), (5, 0), None, (9, 4), (1, 3), None, (12, 4), (20, 2), (12, 1)]
    for number, step in enumerate(steps, 1):
        if step is None:
            before = ledger.may_be
            # A log that was cleared and one that was not lead to the same disk, which has these changes.
            ledger.may_be = [one | {b""} for one in before]
            log.drop(log.end)
            ledger.may_be = [frozenset((b"",)) for _ in range(BLOCKS)]
            continue
        first, count = step
        change = Change(first * BLOCK, (count or 2) * BLOCK, zero=not count)
        mark = bytes([number]) * BLOCK if count else bytes(BLOCK)
        views = [memoryview(mark * count)] if count else []
        ledger.change(change, mark, acknowledged=None)
        ledger.change(change, mark, acknowledged=log.append(change, views))


def replayed(root: Path) -> list[bytes]:
    """Return the blocks that the next process changes, empty where it changes nothing."""
    found = [b""] * BLOCKS
    with mock.patch.object(tmpfs_store, "DIRECTORY", root / "run"):
        log = WriteLog("image", about=b"image", size=8 * BLOCK)
        for change, data in log.changes():
            content = bytes(change.length) if change.zero else bytes(data)
            for at in range(0, change.length, BLOCK):
                found[(change.offset + at) // BLOCK] = content[at : at + BLOCK]
        log.close()
    return found


def test_a_change_that_was_acknowledged_is_replayed_after_a_kill(root: Path) -> None:
    ledgers: list[Ledger] = []

    def act() -> None:
        ledgers.append(Ledger())
        use(ledgers[-1])

    struck = []
    for result in each_fault(root, {}, act):
        struck.append(result.struck)
        if "power" in (result.point.end, result.point.fault.how):
            continue  # it empties the run directory
        found = replayed(root)
        for block, (content, allowed) in enumerate(zip(found, ledgers[-1].may_be, strict=True)):
            assert content in allowed, f"{result}: block {block} has {content[:4]!r}"
    assert len(struck) > 150
