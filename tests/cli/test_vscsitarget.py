"""The original's command line: what it accepts, and how it refuses. No kernel is touched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vscsihba.cli import vscsitarget
from vscsihba.errors import UsageError


def parse(*words: str) -> list[Path]:
    files: list[Path] = vscsitarget.parser().parse_args(words).files
    return files


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "import sys; from vscsihba.cli.vscsitarget import main; sys.exit(main())",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=60, cwd=cwd, env=environment, check=False
    )


def test_the_originals_usage_is_accepted() -> None:
    options = vscsitarget.parser().parse_args(["id=255", "-files", "a.img,b.img", "-v"])
    assert (options.id, options.files, options.verbose) == (255, [Path("a.img"), Path("b.img")], True)


@pytest.mark.parametrize("word", ["id=256", "id=-1", "id=", "id=x", "0", "di=0", "id=0x1", "id=\uff11"])
def test_an_id_out_of_range_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="write id=0 to id=255"):
        parse(word, "-files", "a.img")


@pytest.mark.parametrize("files", ["", "a.img,", ",a.img", "a.img,,b.img"])
def test_an_empty_file_name_is_refused(files: str) -> None:
    with pytest.raises(UsageError, match="empty file name"):
        parse("id=0", "-files", files)


@pytest.mark.parametrize("files", ["a.img,a.img", "a.img,b.img,./a.img"])
def test_the_same_file_twice_is_refused(files: str) -> None:
    with pytest.raises(UsageError, match="is named twice"):
        parse("id=0", "-files", files)


def test_one_file_under_two_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.img").touch()
    (tmp_path / "b.img").symlink_to("a.img")
    with pytest.raises(UsageError, match=r"b\.img is named twice, also as .*a\.img"):
        parse("id=0", "-files", f"{tmp_path}/a.img,{tmp_path}/b.img")


@pytest.mark.parametrize("size", ["10XB", "-1", "1.5", "many"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(UsageError, match="--create"):
        vscsitarget.parser().parse_args(["id=0", "-files", "a.img", "--create", size])


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: None, "missing.img"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.touch(), "the size is 0"),
        (lambda path: path.write_bytes(bytes(1000)), "no multiple of the block size"),
    ],
    ids=["missing", "directory", "empty", "odd"],
)
def test_a_file_that_cannot_be_a_disk_is_one_line_and_exit_code_2(
    make: object, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "missing.img"
    make(path)  # type: ignore[operator]
    done = run("id=0", "-files", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert complaint in done.stderr


def test_no_arguments_is_one_line_and_exit_code_2() -> None:
    done = run()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "id=N, -files" in done.stderr


def test_a_machine_that_cannot_is_one_line_exit_code_1_and_no_file(tmp_path: Path) -> None:
    if Path("/sys/module/target_core_user").exists():
        pytest.skip("this kernel has target_core_user loaded: nothing is missing here")
    done = run("id=0", "-files", "new.img", "--create", "1MiB", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert not (tmp_path / "new.img").exists(), "nothing half-done"


def test_help_shows_every_option() -> None:
    done = run("--help")
    assert done.returncode == 0
    for option in ("id=", "-files", "-v", "--create", "--block-size", "--read-only", "--removable", "--json"):
        assert option in done.stdout
