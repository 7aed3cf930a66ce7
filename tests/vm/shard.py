"""Sharing the tests out among several machines: whole files, so that a file's tests stay together."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

SECONDS: Final = {
    "test_beside_others.py": 60,
    "test_cli.py": 90,
    "test_configfs.py": 100,
    "test_conformance.py": 170,
    "test_daemon.py": 200,
    "test_deaths.py": 200,
    "test_disk.py": 100,
    "test_engines.py": 110,
    "test_faults.py": 30,
    "test_guest.py": 5,
    "test_lun_options.py": 20,
    "test_pytest_plugin.py": 30,
    "test_resources.py": 65,
    "test_sg3_utils.py": 40,
    "test_shell.py": 65,
    "test_stuck.py": 300,
    "test_tour.py": 110,
    "test_vscsiapi.py": 50,
    "test_vscsitarget.py": 75,
}
"""How long files take on an emulated machine, as was measured once; of others their length tells."""

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
