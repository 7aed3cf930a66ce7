"""The programs that the start of the guest needs, and the error on a machine without them."""

import re
from pathlib import Path

import pytest

from vscsihba.errors import SandboxError
from vscsihba.sandbox import uml
from vscsihba.sandbox.plan import Plan
from vscsihba.sandbox.programs import NEEDED, check_programs


def fill(folder: Path, *without: str) -> str:
    """Make all programs but some, and return the path."""
    for name in NEEDED.keys() - set(without):
        (folder / name).touch(mode=0o755)
    return str(folder)


def test_a_machine_with_all_programs(tmp_path: Path) -> None:
    check_programs(fill(tmp_path))


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (["modprobe"], "the sandbox needs modprobe; apt-get install kmod"),
        (
            ["udevadm", "systemd-udevd", "kmod"],
            "the sandbox needs kmod and systemd-udevd and udevadm; apt-get install kmod udev",
        ),
    ],
)
def test_the_packages_of_missing_programs_are_named(tmp_path: Path, without: list[str], message: str) -> None:
    with pytest.raises(SandboxError) as refused:
        check_programs(fill(tmp_path, *without))
    assert str(refused.value) == message


@pytest.mark.parametrize("name", NEEDED)
def test_each_program_is_called_in_the_guest(name: str) -> None:
    scripts = "\n".join(path.read_text() for path in (uml.HERE / "guest").glob("*.sh"))
    assert re.search(rf"^[^#\n]*\b{name}\b", scripts, re.MULTILINE)


def test_a_run_checks_them_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise SandboxError("the sandbox needs modprobe")

    monkeypatch.setattr(uml, "check_programs", refuse)
    monkeypatch.setattr(uml, "choose", lambda _wanted: None)
    with pytest.raises(SandboxError, match="needs modprobe"):
        uml.UmlProcess(Plan(command=["true"], environ={}, cwd=Path("/")), None)
