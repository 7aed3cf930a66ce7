"""The shell in a terminal: the tour of the README, as it is written there; and other programs beside it."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.daemon import RUNNING, SAVED, SOCKET, VSCSIHBA, Service, running_service, vscsihba
from tests.vm.shell import mounted, run
from tests.vm.target import CONFIGFS, wait_until
from tests.vm.tour import README, Step, pattern, steps

MiB = 1 << 20
TARGETCTL = VSCSIHBA.with_name("targetctl")


class Screen:
    """A bash in a tmux session of its own, and what its terminal shows."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "tmux"
        environment = {
            **os.environ,
            "PATH": f"{VSCSIHBA.parent}:{os.environ['PATH']}",
            "PS1": "# ",
            "TERM": "xterm",
            "LC_ALL": "C.UTF-8",
            "HOME": str(folder),
        }
        session = ["new-session", "-d", "-x", "160", "-y", "50", "-c", str(folder)]
        command = [*self._tmux, "-f", "/dev/null", *session, "bash", "--norc", "--noprofile"]
        subprocess.run(command, env=environment, check=True)

    @property
    def _tmux(self) -> list[str]:
        return ["tmux", "-S", str(self._socket)]

    def lines(self) -> list[str]:
        """Return all that has been shown, line by line."""
        shown = run(*self._tmux, "capture-pane", "-p", "-J", "-S", "-")
        return [line.rstrip() for line in shown.rstrip().splitlines()]

    def type(self, *lines: str) -> None:
        """Type lines."""
        for line in lines:
            run(*self._tmux, "send-keys", "-l", "--", line)
            run(*self._tmux, "send-keys", "Enter")

    def wait_for_prompt(self, prompt: str, after: int) -> list[str]:
        """Return the lines from the given one on, once the last one is a prompt."""

        def ready() -> bool:
            lines = self.lines()
            return len(lines) > after and lines[-1] == prompt

        wait_until(ready, f"the prompt {prompt}\n" + "\n".join(self.lines()), 300)
        return self.lines()[after:-1]

    def close(self) -> None:
        """End all that runs in it."""
        run(*self._tmux, "kill-server", check=False)


@pytest.fixture
def screen(scratch: Path) -> Iterator[Screen]:
    found = Screen(scratch)
    yield found
    found.close()


@pytest.fixture
def srv(scratch: Path) -> Iterator[None]:
    """A /srv on the scratch disk, for images."""
    folder = scratch / "srv"
    folder.mkdir()
    run("mount", "--bind", folder, "/srv")
    yield
    run("umount", "/srv")


@pytest.fixture
def clean() -> Iterator[None]:
    """No service, nothing remembered; and the same afterwards."""
    for left in (RUNNING, SAVED):
        left.unlink(missing_ok=True)
    yield
    run("umount", "/mnt", check=False)
    if SOCKET.exists():
        subprocess.run([VSCSIHBA, "clear", "--all", "--force"], check=False, timeout=300)
    for left in (RUNNING, SAVED):
        left.unlink(missing_ok=True)


def follows(step: Step, shown: list[str]) -> None:
    """Hold what was shown to what the page says, line by line."""
    said = [line for line in step.shown if line]
    found = [line for line in shown if line]
    exact = step.typed != ("vscsihba status",)
    assert len(said) == len(found), f"{step.typed[0]}: said\n{said}\nshown\n{found}"
    for expected, line in zip(said, found, strict=True):
        assert re.fullmatch(pattern(expected, exact_numbers=exact), line), f"said:  {expected}\nshown: {line}"


def test_the_tour_of_the_readme_is_as_it_is_written(srv: None, clean: None, screen: Screen) -> None:
    tour = steps(README.read_text(), "Five minutes")
    assert len(tour) > 15
    following = [*(step.prompt for step in tour[1:]), "#"]
    screen.wait_for_prompt("#", 0)
    try:
        for step, prompt in zip(tour, following, strict=True):
            before = len(screen.lines())
            screen.type(*step.typed)
            shown = screen.wait_for_prompt(prompt, before + len(step.typed) - 1)
            if step.typed[0].endswith("&"):
                # It is started, and a person takes a breath.
                wait_until(SOCKET.exists, "the service", 300)
            else:
                follows(step, shown)
    finally:
        screen.type("kill %1")
        wait_until(lambda: not _serves(), "the end of the service", 300)


def _serves() -> bool:
    done = subprocess.run([VSCSIHBA, "show"], capture_output=True, check=False, timeout=300)
    return done.returncode == 0


@pytest.fixture
def service(scratch: Path) -> Iterator[Service]:
    with running_service(scratch) as made:
        yield made


@pytest.fixture
def disk(service: Service, scratch: Path) -> Path:
    """The disk of a file, with a file system on it."""
    vscsihba("shell", "/backstores/file", "create", "d1", f"path={scratch}/d1.img", "size=64MiB")
    vscsihba("shell", "/hbas", "create", "5")
    vscsihba("shell", "/hbas/hba5", "create", "d1")
    node = service.disk(5, 0).node
    run("mkfs.ext4", "-q", node)
    return node


def test_a_script_makes_disks_and_stops_at_its_first_error(service: Service, scratch: Path) -> None:
    script = f"""
        # two disks
        /backstores/file create name=d1 path={shlex.quote(str(scratch / "with blank.img"))} size=8MiB
        /backstores/memory create name=d2 size=8MiB
        /hbas create 5 engines=2
        /hbas/hba5 create d1
        /hbas/hba5 create d2 lun=7 read_only=true
        /hbas/hba5 create d3
        /hbas delete 5
    """
    done = subprocess.run(
        [VSCSIHBA, "shell"], input=script, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 2
    assert done.stderr.startswith("vscsihba: line 8: there is no backstore 'd3'")
    nodes = [service.disk(5, lun).node for lun in (0, 7)]
    assert [(Path("/sys/block") / node.name / "ro").read_text().strip() for node in nodes] == ["0", "1"]
    assert (scratch / "with blank.img").stat().st_size == 8 * MiB


def test_a_disk_in_use_is_taken_away_by_force_only(disk: Path, scratch: Path) -> None:
    with mounted(disk, scratch / "mnt") as where:
        refused = vscsihba("shell", "/hbas", "delete", "5", code=1)
        assert f"{disk} is mounted on {where}" in refused
        assert "force=true" in refused
        (where / "file").write_text("it still works")
    vscsihba("shell", "/hbas", "delete", "5")
    assert not disk.exists()
    assert "not shown" in vscsihba("shell", "ls")


def test_a_disk_grows_under_its_file_system(disk: Path, service: Service, scratch: Path) -> None:
    with mounted(disk, scratch / "mnt"):
        vscsihba("shell", "/hbas/hba5/lun0", "resize", "+64MiB")
        run("resize2fs", disk)
        assert os.statvfs(scratch / "mnt").f_blocks * os.statvfs(scratch / "mnt").f_frsize > 100 * MiB


def test_what_another_program_removed_is_shown_as_it_is(disk: Path, service: Service) -> None:
    group = next((CONFIGFS / "loopback").glob("naa.50014055c51ba005")) / "tpgt_1"
    lun = group / "lun/lun_0"
    next(entry for entry in lun.iterdir() if entry.is_symlink()).unlink()
    lun.rmdir()
    wait_until(lambda: not disk.exists(), "the end of the disk")
    state = service.lun(5, 0)["state"]
    assert state != "running"
    assert state in vscsihba("shell", "ls")


def test_targetcli_sees_ours_and_leaves_them(disk: Path, scratch: Path) -> None:
    if shutil.which("targetcli") is None:
        pytest.skip("needs targetcli: install the package targetcli-fb")
    with mounted(disk, scratch / "mnt") as where:
        shown = run("targetcli", "ls", limit=600)
        assert "vscsihba5-lun0" in shown
        assert "naa.50014055c51ba005" in shown
        run(TARGETCTL, "save", scratch / "saved.json", limit=600)
        (where / "file").write_text("it still works")
        run("sync", "-f", where)
    saved = json.loads((scratch / "saved.json").read_text())
    assert [made["name"] for made in saved["storage_objects"]] == ["vscsihba5-lun0"]


def test_targetctl_restores_what_is_anothers_beside_ours(disk: Path, service: Service, scratch: Path) -> None:
    """As at the start of a machine: targetctl first, the service after it."""
    theirs = scratch / "theirs.img"
    with theirs.open("xb") as file:
        file.truncate(MiB)
    saved = {
        "fabric_modules": [],
        "storage_objects": [
            {"plugin": "fileio", "name": "theirs", "dev": str(theirs), "size": MiB, "write_back": False}
        ],
        "targets": [],
    }
    (scratch / "theirs.json").write_text(json.dumps(saved))
    vscsihba("save")
    vscsihba("clear", "--all")
    service.kill()
    RUNNING.unlink(missing_ok=True)
    try:
        run(TARGETCTL, "restore", scratch / "theirs.json", limit=600)
        service.start()
        assert service.disk(5, 0).node.exists()
        others = json.loads(vscsihba("status", "--json"))["others"]
        assert [each["name"].rpartition("/")[2] for each in others] == ["theirs"]
        assert "theirs" in vscsihba("shell", "ls", "/others")
        vscsihba("clear", "--all")
        assert list((CONFIGFS / "core").glob("fileio_*/theirs")) != []
    finally:
        for left in (CONFIGFS / "core").glob("fileio_*/theirs"):
            left.rmdir()
            left.parent.rmdir()
