"""The runner's choice of a machine: KVM that boots, the sandbox, QEMU without KVM."""

import pytest

from vagrant.runner import choice, cli
from vagrant.runner.errors import VmError
from vscsihba.errors import SandboxError
from vscsihba.sandbox import kernels


@pytest.fixture
def uml(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions of User-Mode Linux that are here."""
    versions: list[str] = []

    def choose(wanted: str | None) -> None:
        if not versions or (wanted is not None and wanted not in versions):
            raise SandboxError("User-Mode Linux is not on this machine")

    monkeypatch.setattr(kernels, "choose", choose)
    return versions


@pytest.mark.parametrize(
    ("boots", "here", "expected"),
    [(True, ["6.1"], "kvm"), (True, [], "kvm"), (False, ["6.1"], "sandbox"), (False, [], "tcg")],
)
def test_the_quickest_that_works_is_taken(
    uml: list[str], boots: bool, here: list[str], expected: str
) -> None:
    uml += here
    assert choice.choose("auto", None, 0, lambda: boots) == expected


@pytest.mark.parametrize("wanted", ["kvm", "tcg"])
def test_qemu_is_taken_as_it_is_named(wanted: str) -> None:
    assert choice.choose(wanted, None, 0, lambda: False) == wanted


def test_more_than_one_processor_needs_qemu(uml: list[str]) -> None:
    uml.append("6.1")
    assert choice.choose("auto", None, 2, lambda: False) == "tcg"
    with pytest.raises(VmError, match="one processor"):
        choice.choose("sandbox", None, 2, lambda: False)


def test_a_version_that_can_be_fetched_will_do(uml: list[str]) -> None:
    assert choice.choose("sandbox", "6.12", 0, lambda: False) == "sandbox"
    assert choice.choose("auto", "5.10", 0, lambda: False) == "tcg"


def test_a_missing_sandbox_is_an_error(uml: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--runner", "sandbox", "--", "true"]) == 125
    assert "no sandbox: User-Mode Linux is not on this machine" in capsys.readouterr().err


def test_the_choice_can_be_asked_for(uml: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--which", "--runner", "tcg"]) == 0
    assert capsys.readouterr().out == "tcg\n"
