"""The program vscsihba on a real kernel: what it says of the machine, and what it takes away."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import Serve
from tests.vm.daemon import VSCSIHBA, vscsihba
from tests.vm.shell import mounted, run
from tests.vm.target import CONFIGFS, Target, target_objects

MiB = 1 << 20
Image = Callable[..., Path]


def as_json(*words: str | Path) -> Any:
    return json.loads(vscsihba(*words, "--json"))


@pytest.fixture
def theirs(scratch: Path) -> Iterator[str]:
    """A backstore of another program; it must be there, unchanged, at the end."""
    backstore = CONFIGFS / "core/fileio_77/theirs"
    file = scratch / "theirs.img"
    with file.open("xb") as made:
        made.truncate(MiB)
    backstore.mkdir(parents=True)
    (backstore / "control").write_text(f"fd_dev_name={file},fd_dev_size={MiB}")
    (backstore / "udev_path").write_text(str(file))
    (backstore / "enable").write_text("1")
    yield "fileio_77/theirs"
    assert (backstore / "enable").read_text().strip() == "1"
    backstore.rmdir()
    backstore.parent.rmdir()


def test_doctor_finds_this_machine_fit() -> None:
    said = vscsihba("doctor").splitlines()
    assert said[-1] == "no problems: this machine can have virtual disks"
    assert not [line for line in said if line.startswith("FAIL")]


@pytest.mark.long
def test_without_a_service_engines_are_asked_and_left_alone(serve: Serve, image: Image, theirs: str) -> None:
    target = serve([image("a.img"), image("b.img")], hba=3, options=("--read-only",))
    status = as_json("status")
    assert status["daemon"] is None
    (hba,) = status["hbas"]
    assert [engine["pid"] for engine in hba["engines"]] == [target.process.pid]
    for lun, shown in zip(target.luns, hba["luns"], strict=True):
        assert (shown["device"], shown["size"]) == (str(lun.node), 64 * MiB)
        assert (shown["engine"], shown["state"], shown["read_only"]) == (target.process.pid, "running", True)
        assert Path(shown["by_id"]).resolve() == lun.node
        assert shown["stack"].startswith("file /")
    assert [each["name"] for each in status["others"]] == [theirs]
    text = vscsihba("status")
    assert "service: not running" in text
    assert f"backstore  {theirs}" in text
    before = target_objects()
    assert "is being served by" in vscsihba("clear", "3", code=1)
    assert "is being served by" in vscsihba("clear", "--all", code=1)
    assert target_objects() == before
    assert target.stop() == 0


def test_what_a_killed_engine_leaves_is_kept_while_it_is_used_then_cleared(
    serve: Serve, image: Image, theirs: str, scratch: Path
) -> None:
    file = image("a.img")
    first = serve([file], hba=3)
    node = first.luns[0].node
    run("mkfs.ext4", "-q", node)
    with mounted(node, scratch / "mnt"):
        kill(first)
        assert f"{node} is mounted on" in vscsihba("clear", "3", code=1)
        assert node.exists()
        second = serve([file], hba=3)  # who serves it again can unmount it
    kill(second)

    assert as_json("status")["hbas"][0]["luns"][0]["state"] == "not served"
    done = subprocess.run(
        [VSCSIHBA, "doctor", "--json"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1
    (bad,) = [each for each in json.loads(done.stdout)["findings"] if each["state"] == "problem"]
    assert (bad["title"], bad["text"]) == ("hba3", "1 LUN, not served")
    assert "vscsihba clear 3" in bad["cure"]
    assert vscsihba("clear", "3") == "removed HBA 3\n"
    assert not any("vscsihba3" in path.name for path in target_objects())


def kill(target: Target) -> None:
    os.kill(target.process.pid, signal.SIGKILL)
    target.process.wait(60)
