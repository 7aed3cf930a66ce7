"""The original's command line: what it accepts, and how it refuses. No kernel is touched."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.handlers.qemu.images import NEEDS
from vscsihba.cli import start, vscsitarget
from vscsihba.errors import UsageError


def parse(*words: str) -> argparse.Namespace:
    return vscsitarget.parser().parse_args(words)


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


def test_help_and_wrong_words_load_nothing_that_serves() -> None:
    for words in (["--help"], ["id=300"]):
        program = (
            "import atexit, sys; from vscsihba.cli.vscsitarget import main; "
            f"atexit.register(lambda: print(*sys.modules)); main({words})"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
        )
        loaded = set(done.stdout.split())
        assert "vscsihba.cli.program" in loaded
        assert not loaded & {
            "msgspec",
            "rtslib_fb",
            "vscsihba.configfs",
            "vscsihba.handlers",
            "vscsihba.engine",
        }


def test_the_originals_usage_is_accepted() -> None:
    options = parse("id=255", "-files", "a.img,b.img", "-v")
    assert (options.id, options.files, options.verbose) == (255, "a.img,b.img", True)


@pytest.mark.parametrize("word", ["id=256", "id=-1", "id=", "id=x", "0", "di=0", "id=0x1", "id=\uff11"])
def test_an_id_out_of_range_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="use id=0 to id=255"):
        parse(word, "-files", "a.img")


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ("a.img,,b.img", "has an empty file name in it"),
        ("a.img,./a.img", "./a.img is given twice, also as a.img"),
        ("readonly|nosuch:x|a.img", "there is no handler 'nosuch'"),
        ("memory:1MiB;sise=2", 'did you mean "size"?'),
        ("mine:1MiB", "mine:1MiB: no such file; create it, or use --create SIZE"),
        ("readonly|/none.img", "/none.img: no such file; create it, or use --create SIZE"),
        ("file:/none.img", '/none.img: no such file; create it, or set its "size"\n'),
    ],
)
def test_words_that_cannot_be_meant_are_one_line_and_exit_code_2(files: str, complaint: str) -> None:
    done = run("id=0", "-files", files)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert complaint in done.stderr


@NEEDS
def test_a_missing_image_is_not_created_by_an_option() -> None:
    done = run("id=0", "-files", "qemu:/none.qcow2;size=1MiB", "--create", "1MiB")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert '/none.qcow2: no such image; set "format" to that of a new one' in done.stderr


def test_an_interrupt_during_imports_ends_the_program_without_a_word() -> None:
    program = (
        "import os, signal; from vscsihba.cli.start import interrupts_end\n"
        "with interrupts_end(): os.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_the_entry_points_run_the_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    for program in (start.vscsihba, start.vscsitarget):
        monkeypatch.setattr(sys, "argv", [program.__name__, "--nonsense"])
        assert program() == 2
        assert f'see "{program.__name__} --help"' in capsys.readouterr().err
        assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (None, "no such Python file"),
        ("x = 1", "defines no handler"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_handler_file_that_is_not_right_is_one_line_and_exit_code_2(
    source: str | None, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    if source is not None:
        path.write_text(source)
    done = run("id=0", "-files", "mine:1MiB", "--handler", str(path))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert complaint in done.stderr
    assert str(path) in done.stderr


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
        (lambda path: path.write_bytes(bytes(1000)), "not a multiple of the block size"),
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
    options = ("id=", "-files", "-v", "--handler", "--create", "--block-size", "--physical-block-size")
    for option in (*options, "--read-only", "--removable", "--json"):
        assert option in done.stdout
