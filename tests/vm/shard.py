"""Sharing the tests out among several machines: whole files, so that a file's tests stay together."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

SECONDS: Final = {
    "test_attach.py": 4,
    "test_bench.py": 1,
    "test_beside_others.py": 1,
    "test_cli.py": 8,
    "test_configfs.py": 42,
    "test_conformance.py": 75,
    "test_crashes.py": 9,
    "test_daemon.py": 33,
    "test_devices.py": 10,
    "test_deaths.py": 13,
    "test_disk.py": 51,
    "test_engines.py": 26,
    "test_export_attacks.py": 90,
    "test_export_restarts.py": 12,
    "test_exports.py": 110,
    "test_faults.py": 15,
    "test_guest.py": 2,
    "test_http.py": 40,
    "test_in_use.py": 30,
    "test_handlers.py": 24,
    "test_lun_options.py": 6,
    "test_nbd.py": 45,
    "test_preflight.py": 5,
    "test_mirror.py": 1,
    "test_pytest_plugin.py": 10,
    "test_qemu.py": 115,
    "test_rbd.py": 1,
    "test_reflink.py": 14,
    "test_resources.py": 16,
    "test_sg.py": 21,
    "test_sg3_utils.py": 8,
    "test_shell.py": 13,
    "test_snapshot.py": 8,
    "test_soak.py": 1,
    "test_stuck.py": 27,
    "test_tour.py": 1,
    "test_units.py": 30,
    "test_vscsiapi.py": 40,
    "test_trace.py": 52,
    "test_vscsitarget.py": 31,
}
"""How long files take in a sandbox, less their tests that are marked `long` or `qemu`, with another sandbox
beside it, and without Ceph; of files that are not named their length tells."""

_SECONDS_A_BYTE: Final = 0.012


def parse(text: str) -> tuple[int, int]:
    """Read ``1/2``: the first of two shards.

    Raises:
        pytest.UsageError: There is no such shard.
    """
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise pytest.UsageError(f"VSCSIHBA_SHARD={text} is no shard; write it as 1/2")
    return int(number), int(of)


def files_of(files: Iterable[Path], number: int, of: int) -> set[Path]:
    """Return the files of one shard; each file is in exactly one."""
    loads = [0.0] * of
    chosen = set()
    for file in sorted(set(files), key=lambda file: (-_seconds(file), file.name)):
        lightest = loads.index(min(loads))
        loads[lightest] += _seconds(file)
        if lightest == number - 1:
            chosen.add(file)
    return chosen


def _seconds(file: Path) -> float:
    return SECONDS.get(file.name) or file.stat().st_size * _SECONDS_A_BYTE
