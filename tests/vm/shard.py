"""Sharing the tests out among several machines: whole files, so that a file's tests stay together.

How long a file takes is not known beforehand; its length has to do.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest


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
    loads = [0] * of
    chosen = set()
    for file in sorted(set(files), key=lambda file: (-file.stat().st_size, file.name)):
        lightest = loads.index(min(loads))
        loads[lightest] += file.stat().st_size
        if lightest == number - 1:
            chosen.add(file)
    return chosen
