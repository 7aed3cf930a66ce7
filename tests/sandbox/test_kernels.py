"""The choice of a User-Mode Linux."""

from pathlib import Path

import pytest

from vscsihba.errors import SandboxError
from vscsihba.sandbox import kernels


def install(root: Path, release: str, *, module: bool = True) -> Path:
    """Put a kernel where the package has it, and return its image."""
    image = root / "usr/bin/linux.uml"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.touch(mode=0o755)
    folder = root / "usr/lib/uml/modules" / release
    (folder / kernels.MODULE).parent.mkdir(parents=True)
    if module:
        (folder / kernels.MODULE).touch()
    return image


def choose(folder: Path, wanted: str | None = None) -> str:
    return kernels.choose(wanted, folder / "root", folder / "cache").release


def test_the_preferred_version_wins_over_newer_ones(tmp_path: Path) -> None:
    install(tmp_path / "root", "6.1.176")
    install(tmp_path / "cache/6.12.113", "6.12.113")
    assert choose(tmp_path) == "6.1.176"
    assert choose(tmp_path, "6.12") == "6.12.113"
    assert choose(tmp_path, "6.1") == "6.1.176"


def test_the_newest_is_taken_without_the_preferred_one(tmp_path: Path) -> None:
    install(tmp_path / "cache/6.9.1", "6.9.1")
    install(tmp_path / "cache/6.12.113", "6.12.113")
    assert choose(tmp_path) == "6.12.113"


def test_a_missing_kernel_is_an_error_with_two_cures(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"apt-get install user-mode-linux.*--fetch"):
        choose(tmp_path)


def test_a_version_that_is_not_here_names_those_that_are(tmp_path: Path) -> None:
    install(tmp_path / "root", "6.1.176")
    with pytest.raises(SandboxError, match=r"only 6\.1\.176; .*--fetch --kernel 6\.12"):
        choose(tmp_path, "6.12")


def test_a_kernel_without_the_modules_does_not_count(tmp_path: Path) -> None:
    install(tmp_path / "root", "6.1.176", module=False)
    with pytest.raises(SandboxError, match="not on this machine"):
        choose(tmp_path)


def test_a_kernel_by_its_path(tmp_path: Path) -> None:
    image = install(tmp_path / "mine", "7.0")
    found = kernels.choose(str(image))
    assert (found.release, found.image) == ("7.0", image)


@pytest.mark.parametrize("name", ["./none", "/etc/passwd"])
def test_a_path_that_is_no_program(name: str) -> None:
    with pytest.raises(SandboxError, match="is not an executable"):
        kernels.choose(name)


def test_a_named_kernel_without_its_modules(tmp_path: Path) -> None:
    image = install(tmp_path / "mine", "7.0", module=False)
    with pytest.raises(SandboxError, match="no modules"):
        kernels.choose(str(image))
