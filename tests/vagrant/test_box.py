"""The name of the box: a hash of its inputs."""

import shutil
import subprocess
from pathlib import Path

import pytest

VAGRANT = Path(__file__).resolve().parents[2] / "vagrant"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(VAGRANT, tmp_path / "vagrant", ignore=shutil.ignore_patterns(".vagrant")))


def folder(vagrant: Path, boxes: Path = Path("/boxes")) -> Path:
    command = [str(vagrant / "build-box"), "--folder"]
    done = subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", "VM_BOXES": str(boxes)},
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(done.stdout.strip())


def test_the_name_does_not_depend_on_where_it_is_built(copy: Path) -> None:
    assert folder(copy) == folder(VAGRANT)
    assert folder(copy).parent == Path("/boxes")


@pytest.mark.parametrize(
    "path",
    [
        "build-box",
        "debian-sources",
        "box/customize",
        "box/before",
        "packages/tests.txt",
        "packages/kernels.txt",
    ],
)
def test_an_input_of_the_box_changes_its_name(copy: Path, path: str) -> None:
    before = folder(copy)
    with (copy / path).open("a") as file:
        file.write("# more\n")
    assert folder(copy) != before


@pytest.mark.parametrize("path", ["provision.sh", "test.sh", "Vagrantfile", "packages/work.txt"])
def test_a_file_that_is_no_input_keeps_the_name(copy: Path, path: str) -> None:
    before = folder(copy)
    with (copy / path).open("a") as file:
        file.write("# more\n")
    assert folder(copy) == before


def test_an_existing_box_is_not_built_again(copy: Path, tmp_path: Path) -> None:
    """With no program that could build anything on the path."""
    place = folder(copy, tmp_path)
    place.mkdir()
    (place / f"{place.name}.box").touch()
    done = subprocess.run(
        [copy / "build-box"],
        env={"PATH": "/usr/bin:/bin", "VM_BOXES": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{place}\n", "")
