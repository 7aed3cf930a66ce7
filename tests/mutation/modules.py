"""The critical modules, and the tests that are nearest to each. A table, and nothing else."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Target:
    """A module and its tests.

    Attributes:
        path: Of the module, below the top of the tree.
        tests: Arguments for pytest.
    """

    path: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the command line calls it: the path without its end."""
        return self.path.removesuffix(".py")

    @property
    def module(self) -> str:
        """The dotted name that Python knows it by."""
        place = self.path if self.path.startswith("vscsihba/") else f"vscsihba/{self.path}"
        return place.removesuffix(".py").replace("/", ".")


_HANDLERS: Final = "tests/handlers"
_MIRROR: Final = (f"{_HANDLERS}/test_mirror_marks.py", f"{_HANDLERS}/test_mirror.py")
_SIM: Final = "tests/sim/test_exhaustive.py"

TARGETS: Final = (
    Target("handlers/durable.py", (f"{_HANDLERS}/test_durable.py", "tests/sim/test_durable_files.py")),
    Target("handlers/file_making.py", (f"{_HANDLERS}/test_file.py", "tests/sim/test_durable_files.py")),
    Target("handlers/file_direct.py", (f"{_HANDLERS}/test_file.py",)),
    Target("handlers/file_sync.py", (f"{_HANDLERS}/test_file.py",)),
    Target("handlers/superblock.py", (f"{_HANDLERS}/test_superblock.py",)),
    Target("handlers/surviving.py", (f"{_HANDLERS}/test_surviving.py", f"{_HANDLERS}/test_cow.py")),
    Target("handlers/overlay.py", (f"{_HANDLERS}/test_cow.py", _SIM, "-k", "cow")),
    Target("handlers/overlay_file.py", (f"{_HANDLERS}/test_cow.py", f"{_HANDLERS}/test_cow_admin.py")),
    Target("handlers/cow_disk.py", (f"{_HANDLERS}/test_cow.py", _SIM, "-k", "cow")),
    Target("handlers/snapshot_set.py", (f"{_HANDLERS}/test_snapshot.py",)),
    Target("handlers/cache.py", (f"{_HANDLERS}/test_cache.py",)),
    Target("handlers/cache_slots.py", (f"{_HANDLERS}/test_cache.py",)),
    Target("handlers/mirror_sync.py", _MIRROR),
    Target("handlers/mirror_state.py", ("tests/sim/test_durable_files.py", *_MIRROR)),
    Target("handlers/mirror_members.py", _MIRROR),
    Target("handlers/encrypt.py", (f"{_HANDLERS}/test_encrypt.py",)),
    Target("handlers/luks2.py", (f"{_HANDLERS}/test_encrypt.py", f"{_HANDLERS}/test_encrypt_admin.py")),
    Target("vscsihba/tcmu/ring.py", ("tests/tcmu",)),
    Target("vscsihba/tcmu/journal.py", ("tests/tcmu/test_journal.py",)),
    Target("vscsihba/tcmu/answers.py", ("tests/tcmu",)),
    Target(
        "vscsihba/engine/short_cut.py", ("tests/engine/test_fast_path.py", "tests/engine/test_short_cut.py")
    ),
    Target(
        "vscsihba/engine/task_set.py",
        (
            "tests/engine/test_lun.py",
            "tests/engine/test_aborts.py",
            "tests/engine/test_fast_path.py",
            "tests/engine/test_takeover.py",
        ),
    ),
    Target("vscsihba/engine/ownership.py", ("tests/engine/test_luns.py",)),
    Target("vscsihba/engine/tenure.py", ("tests/engine/test_tenure.py", "tests/engine/test_luns.py")),
    Target("vscsihba/daemon/state.py", ("tests/daemon/test_state.py",)),
)
