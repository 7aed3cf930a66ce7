import shutil
import sys
from pathlib import Path

import pytest

from vagrant.runner import cli, kernels, process, unpack, virtme
from vagrant.runner.errors import NOT_RUN, TIMED_OUT, VmError
from vagrant.runner.workdir import WorkDir

KERNEL = kernels.Kernel("6.1.0-1-amd64", Path("/boot/vmlinuz-6.1.0-1-amd64"))


@pytest.fixture
def no_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host that passes every check, where runs leave their files in `tmp_path`."""
    monkeypatch.setattr(cli, "check_host", lambda: None)
    monkeypatch.setattr(kernels, "choose", lambda _prefix, *_folders: KERNEL)
    monkeypatch.setattr(unpack, "unpacked", lambda _kernel, _cache: None)
    monkeypatch.setattr(WorkDir, "make_scratch", lambda _self, _size: None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def guest_leaves(monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    """Put these files into the share in the guest's place."""

    def run(_line: list[str], work: WorkDir, _limit: float | None) -> None:
        for name, text in files.items():
            (work.console if name == "console" else work.share / name).write_text(text)

    monkeypatch.setattr(process, "run_streaming", run)


def test_everything_after_the_dashes_is_the_command() -> None:
    options = cli.make_parser().parse_args(["--timeout", "5", "--", "ls", "--timeout", "--", "-l"])
    assert (options.timeout, options.command) == (5.0, ["ls", "--timeout", "--", "-l"])


@pytest.mark.parametrize("code", [0, 1, 77, 255])
def test_the_exit_code_is_the_commands(no_host: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    guest_leaves(monkeypatch, ready="", exit=f"{code}\n")
    assert cli.main(["--runner", "tcg", "--", "true"]) == code
    assert list(no_host.iterdir()) == []


def test_a_guest_that_ends_early_is_reported_with_its_last_lines(
    no_host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guest_leaves(monkeypatch, ready="", console="Kernel panic - not syncing\n")
    assert cli.main(["--runner", "tcg", "--", "true"]) == NOT_RUN
    said = capsys.readouterr().err
    assert "the guest ended before its command did" in said
    assert "Kernel panic" in said


@pytest.mark.parametrize(
    ("files", "message"),
    [({}, "did not come up"), ({"failure": "line 9: modprobe"}, "guest/enter.sh, line 9: modprobe")],
)
def test_a_guest_that_is_never_ready_is_reported(
    no_host: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    message: str,
) -> None:
    guest_leaves(monkeypatch, **files)
    assert cli.main(["--runner", "tcg", "--", "true"]) == NOT_RUN
    assert message in capsys.readouterr().err


def test_the_time_limit_has_its_exit_code(
    no_host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_line: list[str], _work: WorkDir, _limit: float | None) -> None:
        raise process.TimeLimitError

    monkeypatch.setattr(process, "run_streaming", run)
    assert cli.main(["--runner", "tcg", "--timeout", "3", "--", "true"]) == TIMED_OUT
    assert "the time limit of 3 s was reached" in capsys.readouterr().err


def test_a_shell_needs_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == NOT_RUN
    assert "a shell needs a terminal" in capsys.readouterr().err


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "busybox" else program)
    with pytest.raises(VmError, match="not installed: busybox-static"):
        cli.check_host()


@pytest.mark.parametrize("interactive", [False, True])
def test_the_command_line_is_one_that_virtme_run_reads(tmp_path: Path, interactive: bool) -> None:
    with WorkDir(tmp_path) as work:
        line = virtme.command_line(virtme.Machine(KERNEL, "tcg"), work, tmp_path, interactive=interactive)
    start = line.index(str(Path(sys.executable).parent / "virtme-run"))
    assert line[:3] == ["setpriv", "--pdeathsig", "KILL"]
    assert line[start + 1 :][:2] == ["--kimg", str(KERNEL.image)]
    assert "--disable-kvm" in line
    assert f"--rwdir={virtme.GUEST_SHARE}={work.share}" in line
    assert f"--rwdir={virtme.GUEST_SHARE}/results={tmp_path}" in line
    assert ("--shell" in line) is interactive
    assert line[line.index("--qemu-opts") + 1].startswith("-")
    ours = [word for word in line if word.startswith("--kopt=PATH=")]
    assert ours == [f"--kopt=PATH={virtme.GUEST / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"]


def test_the_programs_in_the_inits_way_can_be_started() -> None:
    names = {"bin/udevadm", "bin/systemd-tmpfiles", "enter.sh"}
    assert all((virtme.GUEST / name).stat().st_mode & 0o111 for name in names)
    assert (virtme.HERE / "qemu").stat().st_mode & 0o111


def test_a_kernel_that_is_not_here_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    here: list[kernels.Kernel] = []
    monkeypatch.setattr(kernels, "installed", lambda *_folders: here)
    monkeypatch.setattr(kernels, "fetch", lambda prefix: here.append(KERNEL) if prefix == "6.1" else None)
    assert cli.find_kernel("6.1") == KERNEL


def test_with_no_kernel_at_all_none_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "installed", lambda *_folders: [])
    with pytest.raises(VmError, match="apt-get install linux-image"):
        cli.find_kernel(None)


def test_a_plain_guest_has_no_settings_for_speed(tmp_path: Path) -> None:
    with WorkDir(tmp_path) as work:
        machine = virtme.Machine(KERNEL, "tcg", unpacked=tmp_path / "vmlinux", plain=True)
        line = virtme.command_line(machine, work, tmp_path, interactive=False)
    start = line.index("-machine")
    assert line[start : start + 6] == ["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]
    assert not [word for word in line if "tsc" in word or "mitigations" in word or "qboot" in word]


def test_plain_is_for_qemu_without_kvm(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--plain", "--which"]) == 0
    assert capsys.readouterr().out == "tcg\n"
    assert cli.main(["--plain", "--runner", "sandbox", "--which"]) == NOT_RUN
