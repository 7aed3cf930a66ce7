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
_COW: Final = f"{_HANDLERS}/cow"
_DURABLE: Final = "tests/sim/test_durable_files.py"
_ENCRYPT: Final = f"{_HANDLERS}/encrypt"
_MIRROR: Final = f"{_HANDLERS}/mirror"
_SIM: Final = "tests/sim/test_exhaustive.py"

TARGETS: Final = (
    Target(
        "handlers/shared/durable.py",
        (f"{_HANDLERS}/shared/test_durable.py", _DURABLE),
    ),
    Target(
        "handlers/file/making.py",
        (f"{_HANDLERS}/file/test_file.py", f"{_HANDLERS}/file/test_making.py", _DURABLE),
    ),
    Target("handlers/file/direct.py", (f"{_HANDLERS}/file/test_file.py",)),
    Target("handlers/file/sync.py", (f"{_HANDLERS}/file/test_file.py",)),
    Target("handlers/shared/superblock.py", (f"{_HANDLERS}/shared/test_superblock.py",)),
    Target(
        "handlers/shared/tmpfs_store.py",
        (f"{_HANDLERS}/shared/test_tmpfs_store.py", _COW),
    ),
    Target("handlers/cow/overlay.py", (_COW, _SIM, "-k", "cow")),
    Target("handlers/cow/overlay_file.py", (_COW,)),
    Target("handlers/cow/disk.py", (_COW, _SIM, "-k", "cow")),
    Target("handlers/snapshot/snapshot_set.py", (f"{_HANDLERS}/snapshot",)),
    Target("handlers/cache/handler.py", (f"{_HANDLERS}/cache/test_cache.py",)),
    Target("handlers/cache/slots.py", (f"{_HANDLERS}/cache/test_cache.py",)),
    Target("handlers/mirror/sync.py", (_MIRROR,)),
    Target("handlers/mirror/state.py", (_DURABLE, _MIRROR)),
    Target("handlers/mirror/members.py", (_MIRROR,)),
    Target("handlers/encrypt/handler.py", (_ENCRYPT,)),
    Target("handlers/encrypt/luks2.py", (_ENCRYPT,)),
    Target("vscsihba/tcmu/ring.py", ("tests/tcmu",)),
    Target("vscsihba/tcmu/journal.py", ("tests/tcmu/test_journal.py",)),
    Target("vscsihba/tcmu/completions.py", ("tests/tcmu",)),
    Target(
        "vscsihba/engine/serving/fast_path.py",
        ("tests/engine/serving/test_fast_path.py", "tests/engine/serving/test_fast_path_cost.py"),
    ),
    Target(
        "vscsihba/engine/serving/task_set.py",
        (
            "tests/engine/serving/test_lun.py",
            "tests/engine/serving/test_aborts.py",
            "tests/engine/serving/test_fast_path.py",
            "tests/engine/serving/test_takeover.py",
        ),
    ),
    Target("vscsihba/engine/owning/ownership.py", ("tests/engine/owning/test_luns.py",)),
    Target(
        "vscsihba/engine/owning/owned_lun.py",
        ("tests/engine/owning/test_owned_lun.py", "tests/engine/owning/test_luns.py"),
    ),
    Target("vscsihba/daemon/state.py", ("tests/daemon/test_state.py",)),
)
