"""The fixtures of the pytest plugin on a real kernel, and the examples of docs/pytest.md."""

import os
import re
import time
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.shell import run
from vscsihba.hba import VirtualHba
from vscsihba.pytest_plugin.disk import MakeDisk

pytest_plugins = ["pytester"]
PAGE = Path(__file__).parents[3] / "docs/pytest.md"


def test_the_examples_of_the_page_run(pytester: pytest.Pytester) -> None:
    example = "\n\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    pytester.makepyfile(example)
    pytester.runpytest_subprocess("--vscsi-required", "-p", "no:cacheprovider").assert_outcomes(
        passed=example.count("def test_")
    )


def test_disks_have_the_sizes_that_were_asked_for(vscsi_disk: MakeDisk, vscsi_hba: VirtualHba) -> None:
    disks = [vscsi_disk("8MiB"), vscsi_disk(4 << 20, layers=[{"handler": "readonly"}])]
    sizes = [int(run("blockdev", "--getsize64", disk.path)) for disk in disks]
    assert sizes == [8 << 20, 4 << 20]
    assert [run("blockdev", "--getro", disk.path).strip() for disk in disks] == ["0", "1"]
    assert [disk.number for disk in disks] == list(vscsi_hba.luns) == [0, 1]


def test_an_image_can_be_the_disk(vscsi_disk: MakeDisk, tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(b"here".ljust(1 << 20, b"\0"))
    assert vscsi_disk(source=str(image)).path.read_bytes() == image.read_bytes()


def test_what_is_cached_does_not_hide_a_fault(vscsi_disk: MakeDisk) -> None:
    disk = vscsi_disk("8MiB", faults={"lost": {"handler": "error", "error": "medium", "verbs": ["read"]}})
    with disk.path.open("rb") as file:
        assert len(file.read(4096)) == 4096
    with disk.fault("lost"), disk.path.open("rb") as file, pytest.raises(OSError):  # noqa: PT011 - whichever
        file.read(4096)


def test_a_disk_is_slow_for_a_while(vscsi_disk: MakeDisk) -> None:
    disk = vscsi_disk("8MiB", faults={"slow": {"handler": "delay", "seconds": 2, "verbs": ["write"]}})
    descriptor = os.open(disk.path, os.O_WRONLY | os.O_DSYNC)
    try:
        with disk.fault("slow"):
            started = time.monotonic()
            os.pwrite(descriptor, bytes(4096), 0)
            assert time.monotonic() - started >= 2
    finally:
        os.close(descriptor)


def test_a_disk_is_pulled_out(vscsi_disk: MakeDisk) -> None:
    disk = vscsi_disk("8MiB")
    disk.remove()
    wait_until(lambda: not disk.path.exists(), f"the end of {disk.path}")


def test_a_fault_that_is_left_on_does_not_outlive_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_it(vscsi_disk):
            faults = {"hang": {"handler": "delay", "seconds": 5}}
            vscsi_disk("8MiB", faults=faults).fault("hang").__enter__()
    """)
    pytester.runpytest_subprocess("--vscsi-required", "-p", "no:cacheprovider").assert_outcomes(passed=1)
