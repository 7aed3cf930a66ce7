"""Comparisons of stacks with other programs, on given findings: no clock, no VM."""

import os
import subprocess
import sys

import pytest

from tests.bench import stack_aims, stacks_page, tables
from tests.bench.vm import campaign, host_clock
from tests.bench.vm.findings import OURS, Findings
from tests.bench.vm.stack_peers.compare import GROUPS
from tests.bench.vm.stack_peers.group import Peer


def samples(group: str, workload: str, contestant: str, iops: float, host_us: float) -> dict[str, object]:
    return {
        "kind": "stack",
        "group": group,
        "workload": workload,
        "contestant": contestant,
        "iops": iops,
        "host_us": host_us,
    }


@pytest.fixture
def findings() -> Findings:
    read, write = "128 KiB read, depth 8", "128 KiB write, depth 8"
    return Findings(
        [
            {"kind": "machine", "kernel": "6.1", "cpus": 1, "python": "3.11", "seconds": 1.0, "load": "load"},
            {"kind": "cipher", "kernel": 100.0, "driver": "generic", "openssl": 2000.0},
            {"kind": "missing", "group": "mirror", "contestant": "md raid1", "reason": "no program mdadm"},
            samples("encrypt, LUKS2", read, OURS, 60.0, 10.0),
            samples("encrypt, LUKS2", read, "dm-crypt", 100.0, 4.0),
            samples("encrypt, LUKS2", write, OURS, 40.0, 10.0),
            samples("encrypt, LUKS2", write, "dm-crypt", 100.0, 8.0),
            samples("mirror", write, OURS, 40.0, 10.0),
        ]
    )


def test_an_aim_is_judged_by_its_worst_workload(findings: Findings) -> None:
    assert stack_aims.rows(findings) == [
        (
            "encrypt, LUKS2: vscsihba / dm-crypt",
            "0.5",
            "0.40",
            "0.40",
            "0.40",
            "128 KiB write, depth 8",
            "1 of 2",
            "**no**",
        )
    ]


def test_a_cell_has_rate_and_both_ratios(findings: Findings) -> None:
    table = tables.compared("encrypt", findings.group("encrypt, LUKS2"))
    assert table.headings == ("workload", OURS, "dm-crypt")
    assert table.rows[0] == ("128 KiB read, depth 8", "60", "100: 0.60 / 0.40")


def test_a_missing_peer_is_named(findings: Findings) -> None:
    section = stacks_page.machine("Here", findings)
    assert "Not measured: md raid1 (mirror): no program mdadm." in section
    assert "2000 MiB/s in OpenSSL, 100 MiB/s in the kernel (generic)" in section


def test_what_was_not_measured_anew_is_kept(findings: Findings) -> None:
    now = Findings([samples("mirror", "128 KiB write, depth 8", OURS, 80.0, 5.0)])
    kept = stacks_page.kept(findings, now)
    assert {line.get("group") for line in kept} == {None, "encrypt, LUKS2"}
    assert {line["kind"] for line in kept} == {"cipher", "stack"}


def test_a_peer_without_its_program_or_module_is_missing() -> None:
    peer = GROUPS[0].peers[0]
    assert Peer("x", peer.make, ("no-such-program",)).missing() == "no program no-such-program"
    assert Peer("x", peer.make).missing() == ""


def test_each_aim_names_a_peer_that_is_measured() -> None:
    for aim in stack_aims.AIMS:
        groups = [group for group in GROUPS if group.name.startswith(aim.group)]
        assert any(peer.name == aim.peer for group in groups for peer in group.peers)


def test_the_sandbox_stays_on_one_processor() -> None:
    processors = "import os; print(len(os.sched_getaffinity(0)))"
    words = [*campaign.pinned("sandbox"), sys.executable, "-c", processors]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "1\n"
    assert campaign.pinned("qemu") == ()


def test_the_host_counts_the_time_of_descendants() -> None:
    before = host_clock.process_tree_seconds(os.getpid())
    assert before > 0
    sum(range(300_000))
    assert host_clock.process_tree_seconds(os.getpid()) > before


def test_the_best_rounds_are_compared_beside_the_medians() -> None:
    write = "128 KiB write, depth 8"
    found = [
        samples("cow", write, name, iops, 1.0)
        for name, rounds in ((OURS, (10.0, 60.0, 20.0)), ("nbdkit cow", (40.0, 10.0, 30.0)))
        for iops in rounds
    ]
    group = Findings(found).group("cow")
    assert group.best_ratio(write, "nbdkit cow") == 1.5
    assert group.best_ratio(write, "qemu-nbd qcow2") == 0.0
