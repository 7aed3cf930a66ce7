"""The kinds of disk that are tested, the ways to reach them, and libiscsi's tests.

Knows vscsitarget by the words of its command line; starts nothing but ``iscsi-test-cu --list``.
"""

import fnmatch
import re
import subprocess
from dataclasses import dataclass
from typing import Final

MiB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of disk.

    Attributes:
        name: Its name on the command line and in the tables.
        options: Words for vscsitarget.
        stack: The stack that vscsitarget serves; ``{image}`` stands for a sparse file.
        size: Bytes of the image; the tool waits 5 s for a command on ``/dev/sgN``, and some go over the
            whole disk.
    """

    name: str
    options: tuple[str, ...] = ()
    stack: str = "{image}"
    size: int = 32 * MiB


PROFILES: Final = {
    profile.name: profile
    for profile in (
        Profile("512-thin"),
        Profile("512e", ("--physical-block-size", "4096")),
        Profile("4kn", ("--block-size", "4096"), stack="memory:size=32MiB"),
        Profile("read-only", ("--read-only",)),
        Profile("removable", ("--removable",)),
    )
}
SLOWLY: Final = "rate:bytes_per_second=1MiB|"
"""Before a stack: so slow that it takes half a minute to write a disk of 32 MiB."""
TRANSPORTS: Final = ("sg", "iscsi")
"""``/dev/sgN``; an ``iscsi://`` URL of the same backstore, by the kernel's iSCSI target."""

FIRST: Final = "512-thin"
"""The kind of disk that every test is to be run on; what passes there need not be seen on the others."""
LANES: Final = (*((name, "sg") for name in PROFILES), (FIRST, "iscsi"))
"""What is run unless something else is asked for, and what the tables need."""

TWO_PATHS: Final = ("MultipathIO.*",)
"""Tests that are told of a second path to the disk. Other tests about two initiators log in by themselves."""
NEW_DISK: Final = ("MultipathIO.CompareAndWrite*",)
"""Tests that take blocks for zero which they have not written."""
SLOW_DISK: Final = ("Sanitize.Reset",)
"""Tests that want a command to go on for longer than a disk of this size needs for it."""
_TEST: Final = re.compile(r"^ALL\.(\w+\.[\w-]+)$", re.MULTILINE)


def listed() -> list[str]:
    """Return all tests, each ``Family.Test``, in the tool's order."""
    done = subprocess.run(["iscsi-test-cu", "--list"], capture_output=True, text=True, check=True)
    return _TEST.findall(done.stdout)


def needs_two_paths(test: str) -> bool:
    """Tell whether a test is to be given two paths."""
    return _named(test, TWO_PATHS)


def needs_new_disk(test: str) -> bool:
    """Tell whether a test is to be given a disk that was never written to."""
    return _named(test, NEW_DISK)


def needs_slow_disk(test: str) -> bool:
    """Tell whether a test is to be given a disk that takes its time."""
    return _named(test, SLOW_DISK)


def _named(test: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(test, pattern) for pattern in patterns)


def selected(tests: list[str], patterns: list[str]) -> list[str]:
    """Return the tests that a pattern names: ``Read10``, ``Read10.Simple``, ``*.DpoFua``; all without one."""
    if not patterns:
        return tests
    return [
        test
        for test in tests
        if any(fnmatch.fnmatch(test, word) or fnmatch.fnmatch(test, f"{word}.*") for word in patterns)
    ]
