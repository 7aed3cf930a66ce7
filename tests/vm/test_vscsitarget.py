"""The command on a real kernel: refusals, signals, crashes and what they leave."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.conftest import Serve
from tests.vm.shell import mounted, run
from tests.vm.target import CONFIGFS, PROGRAM, Target, target_objects
from vscsihba.configfs import wwn_of

MiB = 1 << 20
Image = Callable[..., Path]


def refused(*words: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PROGRAM, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.stderr.count("\n") == 1, f"not one line: {done.stderr}"
    assert done.stdout == ""
    return done


def test_an_id_that_serves_another_disk_is_refused(serve: Serve, image: Image) -> None:
    target = serve([image("a.img")], hba=3)
    done = refused("id=3", "-files", image("b.img"))
    assert done.returncode == 2
    assert "LUN 0 of HBA 3 already exists with different backing storage" in done.stderr
    assert target.luns[0].node.exists()
    assert target.stop() == 0


def test_a_file_that_is_served_is_refused(serve: Serve, image: Image) -> None:
    disk = image("a.img")
    target = serve([disk], hba=3)
    before = target_objects()
    done = refused("id=4", "-files", disk)
    assert done.returncode == 1
    assert str(disk) in done.stderr
    assert target_objects() == before, "nothing half-done"
    assert target.stop() == 0


@pytest.mark.parametrize(("word", "kernels"), [("engine", "-2"), ("sender", "-1")])
def test_the_kernel_completes_commands_where_it_is_told(
    serve: Serve, image: Image, monkeypatch: pytest.MonkeyPatch, word: str, kernels: str
) -> None:
    monkeypatch.setenv("VSCSIHBA_COMPLETE", word)
    target = serve([image("a.img")], hba=3)
    setting = CONFIGFS / "loopback" / wwn_of(3) / "param/cmd_completion_affinity"
    wait_until(lambda: setting.read_text().strip() == kernels, f"{setting} to be {kernels}")
    run("dd", "if=/dev/zero", f"of={target.luns[0].node}", "bs=64k", "count=64", "oflag=direct")
    assert target.stop() == 0


def test_somebody_elses_target_is_refused_and_not_touched(image: Image, nothing_stays: None) -> None:
    theirs = CONFIGFS / "loopback" / wwn_of(9)
    nexus = theirs / "tpgt_1" / "nexus"
    backstore = CONFIGFS / "core" / "fileio_77" / "theirs"
    backstore.mkdir(parents=True)
    file = image("theirs.img", MiB)
    (backstore / "control").write_text(f"fd_dev_name={file},fd_dev_size={MiB}")
    (backstore / "enable").write_text("1")
    (theirs / "tpgt_1").mkdir(parents=True)
    nexus.write_text("naa.5001405000000001")
    lun = theirs / "tpgt_1" / "lun" / "lun_0"
    lun.mkdir()
    (lun / "link").symlink_to(backstore)
    try:
        done = refused("id=9", "-files", image("b.img"))
        assert done.returncode == 1
        assert "9" in done.stderr
        assert (lun / "link").exists()
    finally:
        (lun / "link").unlink()
        lun.rmdir()
        (theirs / "tpgt_1").rmdir()
        theirs.rmdir()
        backstore.rmdir()
        backstore.parent.rmdir()


def test_a_mounted_disk_takes_a_second_signal(serve: Serve, image: Image, scratch: Path) -> None:
    target = serve([image("a.img")])
    node = target.luns[0].node
    run("mkfs.ext4", "-q", node)
    with mounted(node, scratch / "mnt") as where:
        target.process.send_signal(signal.SIGTERM)
        wait_until(lambda: target.read(0.1) and "still in use" in target.output, "the word that it is in use")
        assert f"{node} is mounted on {where}" in target.output
        (where / "file").write_text("it still works")
        run("sync", "-f", where)
    assert target.stop() == 0


def test_ctrl_c_detaches(serve: Serve, image: Image) -> None:
    target = serve([image("a.img")])
    assert target.stop(signal.SIGINT) == 0
    assert target.errors() == ""


def test_the_disks_of_a_killed_process_are_gone_on_with_by_the_next(serve: Serve, image: Image) -> None:
    images = [image("a.img", 4 * MiB), image("b.img", 4 * MiB)]
    target = serve(images)
    nodes = [lun.node for lun in target.luns]
    os.kill(target.process.pid, signal.SIGKILL)
    target.process.wait(60)
    assert all(node.exists() for node in nodes), "the kernel keeps the disks, and their commands wait"
    again = serve(images)
    assert [lun.node for lun in again.luns] == nodes
    run("dd", "if=/dev/zero", f"of={nodes[1]}", "bs=64k", "count=4", "oflag=direct")
    assert again.stop() == 0
    assert not any(node.exists() for node in nodes)


def test_what_a_killed_process_leaves_is_cleared_for_another_disk(
    serve: Serve, image: Image, scratch: Path
) -> None:
    target = serve([image("a.img", 4 * MiB)])
    target.process.kill()
    target.process.wait(60)
    again = serve([image("b.img", 8 * MiB)])
    assert (again.luns[0].sysfs / "size").read_text().strip() == str(8 * MiB // 512)
    assert again.stop() == 0


def test_create_makes_a_sparse_file_and_a_disk(serve: Serve, scratch: Path) -> None:
    path = scratch / "new.img"
    target = serve([path], options=("--create", "1GiB"))
    assert target.luns[0].size == "1.0 GiB"
    assert path.stat().st_size == 1 << 30
    assert path.stat().st_blocks * 512 < MiB
    assert target.stop() == 0


def test_a_block_device_is_served_like_a_file(serve: Serve, image: Image) -> None:
    inner = serve([image("a.img", 8 * MiB)], hba=0)
    outer = serve([inner.luns[0].node], hba=1)
    data = os.urandom(MiB)
    fd = os.open(outer.luns[0].node, os.O_WRONLY)
    try:
        os.pwrite(fd, data, MiB)
        os.fsync(fd)
    finally:
        os.close(fd)
    assert outer.stop() == 0
    with inner.luns[0].node.open("rb") as file:
        file.seek(MiB)
        assert file.read(MiB) == data
    assert inner.stop() == 0


def test_verbose_prints_every_command(serve: Serve, image: Image) -> None:
    target = serve([image("a.img")], options=("-v",))
    run(
        "sg_raw",
        "-r",
        "512",
        target.luns[0].sg,
        *["28", "00", "00", "00", "00", "07", "00", "00", "01", "00"],
    )
    line = "lun=0 READ(10) lba=7 blocks=1 GOOD"
    wait_until(lambda: target.read(0.1) and line in target.output, "the command")
    assert "INQUIRY" in target.output
    assert target.stop() == 0


def test_json_lines_can_be_parsed(image: Image, scratch: Path, targets: list[Target]) -> None:
    target = Target([image("a.img")], 0, ("--json",), scratch / "err")
    targets.append(target)
    wait_until(lambda: target.read(0.5) and "\n" in target.output, "a line")
    event = json.loads(target.output.splitlines()[0])
    assert (event["event"], event["id"], event["lun"], event["size"]) == ("ready", 0, 0, 64 * MiB)
    assert Path(event["device"]).is_block_device()
    assert target.stop() == 0
