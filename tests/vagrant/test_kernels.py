from pathlib import Path

import pytest

from vagrant.runner import kernels
from vagrant.runner.errors import VmError


def install(root: Path, release: str, *, modules: bool = True) -> None:
    (root / "boot").mkdir(exist_ok=True)
    (root / "boot" / f"vmlinuz-{release}").touch()
    if modules:
        (root / "lib/modules" / release).mkdir(parents=True)


@pytest.mark.parametrize(
    ("release", "prefix", "expected"),
    [
        ("6.1.0-56-amd64", "6.1", True),
        ("6.1.0-56-amd64", "6.1.0-5", False),
        ("6.1.0-56-amd64", "6.1.0-56", True),
        ("6.12.9-amd64", "6.1", False),
        ("6.12.9-amd64", "6", True),
        ("6.12.9-amd64", "5", False),
    ],
)
def test_matches_number_by_number(release: str, prefix: str, expected: bool) -> None:
    assert kernels.matches(release, prefix) is expected


def test_choose_prefers_the_newest_6_1(tmp_path: Path) -> None:
    for release in ("6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.9-amd64"):
        install(tmp_path, release)
    chosen = kernels.choose(None, tmp_path, tmp_path)
    assert chosen == kernels.Kernel("6.1.0-56-amd64", tmp_path / "boot/vmlinuz-6.1.0-56-amd64")


def test_choose_takes_the_newest_where_there_is_no_6_1(tmp_path: Path) -> None:
    for release in ("5.15.0-1-generic", "6.12.9-amd64", "6.8.0-3-generic"):
        install(tmp_path, release)
    assert kernels.choose(None, tmp_path, tmp_path).release == "6.12.9-amd64"


def test_choose_takes_the_version_that_is_asked_for(tmp_path: Path) -> None:
    for release in ("6.1.0-56-amd64", "6.12.9-amd64"):
        install(tmp_path, release)
    assert kernels.choose("6.12", tmp_path, tmp_path).release == "6.12.9-amd64"


def test_choose_refuses_an_unknown_version_and_names_the_installed(tmp_path: Path) -> None:
    install(tmp_path, "6.1.0-56-amd64")
    with pytest.raises(VmError, match=r"starts with 7 \(installed: 6\.1\.0-56-amd64\)"):
        kernels.choose("7", tmp_path, tmp_path)


def test_choose_passes_over_a_kernel_without_modules(tmp_path: Path) -> None:
    install(tmp_path, "6.1.0-99-amd64", modules=False)
    with pytest.raises(VmError, match="linux-image-amd64"):
        kernels.choose(None, tmp_path, tmp_path)


def test_a_fetched_kernel_is_found_in_the_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "kernels/6.12.9-amd64").mkdir(parents=True)
    (cache / "kernels/.fetch-x1").mkdir()
    install(tmp_path, "6.1.0-56-amd64")
    install(cache / "kernels/6.12.9-amd64", "6.12.9-amd64")
    install(cache / "kernels/.fetch-x1", "6.12.10-amd64")
    image = cache / "kernels/6.12.9-amd64/boot/vmlinuz-6.12.9-amd64"
    assert kernels.choose("6.12", tmp_path, cache) == kernels.Kernel("6.12.9-amd64", image)
    assert kernels.choose(None, tmp_path, cache).release == "6.1.0-56-amd64"


def test_of_two_alike_the_installed_one_is_taken(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "kernels/6.12.9-amd64").mkdir(parents=True)
    install(cache / "kernels/6.12.9-amd64", "6.12.9-amd64")
    install(tmp_path, "6.12.9-amd64")
    assert kernels.choose("6.12", tmp_path, cache).image == tmp_path / "boot/vmlinuz-6.12.9-amd64"


def test_an_unknown_version_is_an_error_of_one_line() -> None:
    with pytest.raises(VmError) as refused:
        kernels.fetch("3.99")
    assert str(refused.value) == (
        "fetch-kernel: no installed kernel has version 3.99, "
        "and it is none of those that can be fetched: 6.1 6.12"
    )
