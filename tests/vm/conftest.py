"""Fixtures of every test on a real kernel: a scratch folder, a vscsitarget, and the proof that nothing stays.

In the guest (VSCSIHBA_IN_VM=1) whatever is missing is a failure; elsewhere these tests are skipped, saying
what is missing. Knows vscsitarget by its command line and output, and the kernel by /sys: not the package.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.vm.shard import files_of, parse
from tests.vm.target import Target, kernel_messages, mark_kernel_log, our_processes, target_objects

MODULES = ("target_core_user", "tcm_loop", "sg")


class Serve(Protocol):
    """The fixture `serve`: starts a vscsitarget for images as the LUNs of an HBA."""

    def __call__(
        self, images: Sequence[Path | str], hba: int = 0, options: Sequence[str] = (), *, wait: bool = True
    ) -> Target: ...


class MakeImage(Protocol):
    """The fixture `image`: makes a sparse image file in the scratch folder."""

    def __call__(self, name: str = "a.img", size: int = 64 << 20) -> Path: ...


def missing() -> str | None:
    """Return the thing that these tests lack here, None when they can run."""
    if os.geteuid() != 0:
        return "root"
    for module in MODULES:
        if subprocess.run(["modprobe", "--quiet", module], check=False, stderr=subprocess.DEVNULL).returncode:
            return f"the kernel module {module} (Linux {os.uname().release})"
    if not os.path.ismount("/sys/kernel/config"):
        return "configfs on /sys/kernel/config"
    return None


@pytest.fixture(scope="session", autouse=True)
def kernel() -> None:
    """A kernel that can do what these tests ask for."""
    lacking = missing()
    if lacking is not None and os.environ.get("VSCSIHBA_IN_VM") == "1":
        pytest.fail(f"this machine lacks {lacking}", pytrace=False)
    if lacking is not None:
        pytest.skip(f"needs {lacking}: run ./dev test tests/vm")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that another machine runs.

    The sandbox (VSCSIHBA_SANDBOX) leaves out the tests that are marked `qemu`; VSCSIHBA_PART=qemu leaves
    out all others, and VSCSIHBA_SHARD=1/2 the files of the other shard.
    """
    chosen = items
    if os.environ.get("VSCSIHBA_PART") == "qemu":
        chosen = [item for item in items if item.get_closest_marker("qemu")]
    elif "VSCSIHBA_SANDBOX" in os.environ:
        chosen = [item for item in items if not item.get_closest_marker("qemu")]
    if text := os.environ.get("VSCSIHBA_SHARD"):
        mine = files_of((item.path for item in chosen), *parse(text))
        chosen = [item for item in chosen if item.path in mine]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failed test's report what vscsitarget and the kernel said."""
    report = yield
    if report.failed:
        for target in getattr(item, "funcargs", {}).get("targets", []):
            report.sections.append((f"stderr of {target}", target.errors()))
        report.sections.append(("kernel messages", kernel_messages()))
    return report


@pytest.fixture
def scratch(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty folder on the scratch disk (a real ext4), removed after the test."""
    base = os.environ.get("VSCSIHBA_SCRATCH")
    if base is None:
        yield tmp_path
        return
    folder = Path(base) / f"{request.node.name.replace('/', '_')[:100]}-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def image(scratch: Path) -> MakeImage:
    """Make sparse image files."""

    def make(name: str = "a.img", size: int = 64 << 20) -> Path:
        path = scratch / name
        with path.open("xb") as file:
            file.truncate(size)
        return path

    return make


@pytest.fixture(autouse=True)
def nothing_stays(kernel: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a configfs object or a vscsitarget process which was not there before."""
    mark_kernel_log(request.node.nodeid)
    objects, processes = target_objects(), our_processes()
    yield
    left = [str(path) for path in sorted(target_objects() - objects)]
    running = [f"process {pid}: {line}" for pid, line in our_processes() - processes]
    if left or running:
        pytest.fail("left behind:\n" + "\n".join(left + running), pytrace=False)


@pytest.fixture
def targets(nothing_stays: None) -> Iterator[list[Target]]:
    """The targets that a test has started; those that still run at its end are asked to detach."""
    started: list[Target] = []
    yield started
    stuck = [target for target in started if not target.finish()]
    if stuck:
        told = "\n".join(f"{target} did not end after SIGTERM:\n{target.errors()}" for target in stuck)
        pytest.fail(told, pytrace=False)


@pytest.fixture
def serve(targets: list[Target], scratch: Path) -> Serve:
    """Start a vscsitarget for images and return it when all its LUNs are ready."""

    def start(
        images: Sequence[Path | str], hba: int = 0, options: Sequence[str] = (), *, wait: bool = True
    ) -> Target:
        target = Target(images, hba, options, scratch / f"vscsitarget-{len(targets)}.err")
        targets.append(target)
        if wait:
            target.wait_ready()
        return target

    return start
