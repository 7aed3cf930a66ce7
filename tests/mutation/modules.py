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
_CACHE: Final = f"{_HANDLERS}/cache"
_COW: Final = f"{_HANDLERS}/cow"
_DURABLE: Final = "tests/sim/test_durable_files.py"
_CONTAINERS: Final = "tests/sim/test_containers.py"
_ENCRYPT: Final = f"{_HANDLERS}/encrypt"
_KEYS: Final = (f"{_ENCRYPT}/test_encrypt_admin.py", f"{_ENCRYPT}/test_luks2.py", _CONTAINERS)
_MIRROR: Final = f"{_HANDLERS}/mirror"
_TCMU: Final = "tests/tcmu"
_JOURNAL: Final = (f"{_TCMU}/test_journal.py",)
_RING: Final = tuple(
    f"{_TCMU}/test_{name}.py"
    for name in (
        "attach",
        "dirty_pages",
        "fetch",
        "journal",
        "management",
        "out_of_order",
        "pad",
        "publish",
        "recover",
        "reset",
    )
)
"""The quick ones: those that kill a process at every line, and the random ones, take minutes."""

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
    Target("handlers/shared/range_lock.py", (f"{_HANDLERS}/shared/test_range_lock.py",)),
    Target("handlers/shared/superblock.py", (f"{_HANDLERS}/shared/test_superblock.py",)),
    Target("handlers/shared/token_lock.py", (f"{_HANDLERS}/shared/test_token_lock.py",)),
    Target(
        "handlers/shared/tmpfs_store.py",
        (f"{_HANDLERS}/shared/test_tmpfs_store.py", _COW),
    ),
    Target("handlers/cow/overlay.py", (_COW,)),
    Target("handlers/cow/state_note.py", (_COW,)),
    Target("handlers/cow/cluster_map.py", (_COW,)),
    Target("handlers/cow/inline.py", (_COW, f"{_HANDLERS}/snapshot/test_snapshot.py")),
    Target("handlers/cow/overlay_file.py", (_COW,)),
    Target("handlers/cow/disk.py", (_COW,)),
    Target(
        "handlers/cow/admin.py",
        (f"{_COW}/test_cow_admin.py", f"{_COW}/test_overlay.py", "tests/sim/test_overlay_commands.py"),
    ),
    Target("handlers/snapshot/snapshot_set.py", (f"{_HANDLERS}/snapshot",)),
    Target("handlers/snapshot/inline.py", (f"{_HANDLERS}/snapshot/test_snapshot.py",)),
    Target("handlers/snapshot/manifest_file.py", (f"{_HANDLERS}/snapshot/test_manifest_file.py",)),
    Target("handlers/cache/handler.py", (_CACHE,)),
    Target("handlers/cache/lines.py", (_CACHE,)),
    Target("handlers/cache/dirty_list.py", (_CACHE,)),
    Target("handlers/cache/write_back.py", (_CACHE,)),
    Target("handlers/cache/traffic.py", (_CACHE,)),
    Target("handlers/cache/inline.py", (_CACHE,)),
    Target(
        "handlers/mirror/sync.py",
        (f"{_MIRROR}/test_mirror_sync.py", f"{_MIRROR}/test_mirror.py", f"{_MIRROR}/test_mirror_marks.py"),
    ),
    Target("handlers/mirror/inline.py", (f"{_MIRROR}/test_mirror_inline.py",)),
    Target("handlers/mirror/reading.py", (f"{_MIRROR}/test_mirror_inline.py",)),
    Target(
        "handlers/mirror/regions.py",
        (f"{_MIRROR}/test_mirror_inline.py", f"{_MIRROR}/test_mirror_marks.py"),
    ),
    Target(
        "handlers/mirror/state.py",
        (f"{_MIRROR}/test_mirror_state.py", f"{_MIRROR}/test_mirror_marks.py", _DURABLE),
    ),
    Target(
        "handlers/mirror/members.py",
        (
            f"{_MIRROR}/test_mirror_members.py",
            f"{_MIRROR}/test_mirror.py",
            f"{_MIRROR}/test_mirror_marks.py",
            f"{_MIRROR}/test_mirror_inline.py",
        ),
    ),
    Target("handlers/mirror/assembly.py", (f"{_MIRROR}/test_mirror_assembly.py",)),
    Target("handlers/mirror/mark.py", (f"{_MIRROR}/test_mirror_mark.py", f"{_MIRROR}/test_mirror_marks.py")),
    Target(
        "handlers/mirror/record.py",
        (f"{_MIRROR}/test_mirror_record.py", f"{_MIRROR}/test_mirror_members.py"),
    ),
    Target("handlers/encrypt/handler.py", (_ENCRYPT,)),
    Target("handlers/encrypt/luks.py", (*_KEYS, f"{_ENCRYPT}/test_encrypt.py")),
    Target("handlers/encrypt/luks1.py", _KEYS),
    Target("handlers/encrypt/luks2.py", (_ENCRYPT, _CONTAINERS)),
    Target("handlers/encrypt/payload.py", (f"{_ENCRYPT}/test_payload.py",)),
    Target("handlers/encrypt/sectors.py", (f"{_ENCRYPT}/test_sectors.py",)),
    Target("handlers/encrypt/libcrypto.py", (f"{_ENCRYPT}/test_libcrypto.py",)),
    Target(
        "handlers/qemu/write_log.py", (f"{_HANDLERS}/qemu/test_write_log.py", "tests/sim/test_write_log.py")
    ),
    Target("handlers/nbd/transmission.py", (f"{_HANDLERS}/nbd/test_transmission.py",)),
    Target("handlers/nbd/flush_results.py", (f"{_HANDLERS}/nbd/test_flush_results.py",)),
    Target("handlers/nbd/unflushed.py", (f"{_HANDLERS}/nbd/test_unflushed.py",)),
    Target("handlers/nbd/slabs.py", (f"{_HANDLERS}/nbd/test_slabs.py", f"{_HANDLERS}/nbd/test_unflushed.py")),
    Target("handlers/nbd/ranges.py", (f"{_HANDLERS}/nbd/test_ranges.py",)),
    Target("handlers/qemu/flushes.py", (f"{_HANDLERS}/qemu/test_logged_verbs.py",)),
    Target("vscsihba/scsi/failed_flush.py", ("tests/scsi/test_failed_flush.py",)),
    Target(
        "vscsihba/scsi/faults.py",
        (
            "tests/scsi/test_faults.py",
            "tests/scsi/test_failed_flush.py",
            "tests/scsi/copy",
            "tests/engine/serving/test_units_of_hba.py",
        ),
    ),
    Target("vscsihba/tcmu/ring.py", (*_RING, f"{_TCMU}/test_corrupt.py", f"{_TCMU}/test_device.py")),
    Target("vscsihba/tcmu/completions.py", _RING),
    Target("vscsihba/tcmu/positions.py", (*_RING, f"{_TCMU}/test_corrupt.py")),
    Target("vscsihba/tcmu/journal.py", _JOURNAL),
    Target("vscsihba/tcmu/journal_file.py", _JOURNAL),
    Target("vscsihba/tcmu/record.py", _JOURNAL),
    Target(
        "vscsihba/tcmu/recovery_scan.py", (*_JOURNAL, f"{_TCMU}/test_recover.py", f"{_TCMU}/test_expired.py")
    ),
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
            "tests/engine/serving/test_units_of_hba.py",
        ),
    ),
    Target(
        "vscsihba/engine/serving/async_path.py",
        ("tests/engine/serving/test_async_operations.py", f"{_HANDLERS}/nbd/test_nbd.py"),
    ),
    Target(
        "vscsihba/engine/serving/tap.py",
        ("tests/engine/serving/test_tap.py", "tests/engine/test_trace_stream.py"),
    ),
    Target("vscsihba/records.py", ("tests/test_records.py",)),
    Target("vscsihba/engine/serving/workers.py", ("tests/engine/serving/test_workers.py",)),
    Target("vscsihba/engine/serving/aborts.py", ("tests/engine/serving/test_aborts.py",)),
    Target("vscsihba/engine/serving/units_of_hba.py", ("tests/engine/serving/test_units_of_hba.py",)),
    Target("vscsihba/engine/owning/ownership.py", ("tests/engine/owning/test_luns.py",)),
    Target(
        "vscsihba/engine/owning/owned_lun.py",
        ("tests/engine/owning/test_owned_lun.py", "tests/engine/owning/test_luns.py"),
    ),
    Target("vscsihba/engine/owning/closing.py", ("tests/engine/owning/test_closing.py",)),
    Target("vscsihba/engine/owning/opening.py", ("tests/engine/owning/test_opening.py",)),
    Target(
        "vscsihba/engine/owning/layer_actions.py",
        ("tests/engine/owning/test_layer_actions.py", "tests/engine/owning/test_owned_lun.py"),
    ),
    Target("vscsihba/engine/owning/unit_state.py", ("tests/engine/owning/test_unit_state.py", _DURABLE)),
    Target("vscsihba/engine/owning/flush_record.py", ("tests/engine/owning/test_flush_record.py",)),
    Target("vscsihba/daemon/state.py", ("tests/daemon/test_state.py",)),
    Target("vscsihba/daemon/transaction.py", ("tests/daemon/test_transaction.py",)),
    Target("configfs/alua.py", ("tests/configfs/test_iscsi.py",)),
    Target("configfs/iscsi.py", ("tests/configfs/test_iscsi.py", "tests/daemon/test_export_failures.py")),
    Target(
        "vscsihba/daemon/exports.py",
        ("tests/daemon/test_exports.py", "tests/daemon/test_service_exports.py"),
    ),
    Target("vscsihba/daemon/stuck_sessions.py", ("tests/daemon/test_stuck_sessions.py",)),
    Target("vscsihba/daemon/refused_logins.py", ("tests/daemon/test_refused_logins.py",)),
)
