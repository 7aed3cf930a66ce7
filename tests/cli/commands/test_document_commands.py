"""plan, apply, show, save, resize, clear: as a person sees them, against a service without a kernel."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from tests.daemon.fake import FakeService
from vscsihba import configfs
from vscsihba.cli.main import main
from vscsihba.errors import HostError

Capture = pytest.CaptureFixture[str]


def write(path: Path, size: str = "1MiB", **lun: object) -> Path:
    path.write_text(
        json.dumps(
            {
                "version": 1,
                "backstores": {"d1": {"handler": "memory", "size": size}},
                "hbas": [{"id": 3, "luns": [{"lun": 0, "backstore": "d1", **lun}]}],
            }
        )
    )
    return path


@pytest.fixture
def document(tmp_path: Path) -> Path:
    return write(tmp_path / "disks.json")


@pytest.fixture
def applied(service: FakeService, document: Path, capsys: Capture) -> Path:
    assert main(["apply", str(document)]) == 0
    capsys.readouterr()
    return document


ADDED = ["add backstore d1: memory 1MiB", "add HBA 3", "add LUN 0 of HBA 3: d1"]


def test_plan_is_a_line_a_change_and_a_count(service: FakeService, document: Path, capsys: Capture) -> None:
    assert main(["plan", str(document)]) == 0
    assert capsys.readouterr() == ("".join(f"+ {line}\n" for line in ADDED) + "\n3 to add\n", "")
    assert service.running.empty


def test_plan_of_what_runs_is_empty(applied: Path, capsys: Capture) -> None:
    assert main(["plan", str(applied)]) == 0
    assert capsys.readouterr().out == "no changes\n"


def test_plan_says_what_needs_more(applied: Path, capsys: Capture) -> None:
    write(applied, removable=True)
    assert main(["plan", str(applied)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("! ")
    assert "(interrupts the disk)" in out
    assert out.endswith("1 to replace\nto replace disks, use apply --replace\n")


def test_plan_as_json_is_the_services_answer(service: FakeService, document: Path, capsys: Capture) -> None:
    assert main(["plan", str(document), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [change["text"] for change in found["changes"]] == ADDED
    assert found["warnings"] == []


def test_apply_prints_each_step_and_a_count(service: FakeService, document: Path, capsys: Capture) -> None:
    assert main(["apply", str(document)]) == 0
    steps = "".join(f"[{number}/3] {line}\n" for number, line in enumerate(ADDED, 1))
    assert capsys.readouterr() == (f"{steps}done: 3 changes\n", "")
    assert service.running.place_of("d1") == (3, 0)


def test_apply_twice_does_nothing_the_second_time(applied: Path, capsys: Capture) -> None:
    assert main(["apply", str(applied)]) == 0
    assert capsys.readouterr().out == "no changes\n"


def test_apply_as_json(service: FakeService, document: Path, capsys: Capture) -> None:
    assert main(["apply", "--json", str(document)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["changes"]), found["done"]) == (3, True)


def test_what_cannot_be_changed_live_needs_replace(applied: Path, capsys: Capture) -> None:
    write(applied, removable=True)
    assert main(["apply", str(applied)]) == 2
    assert "use --replace" in capsys.readouterr().err
    assert main(["apply", "--replace", str(applied)]) == 0


def test_a_disk_in_use_needs_force(applied: Path, service: FakeService, capsys: Capture) -> None:
    service.busy.add((3, 0))
    empty = applied.with_name("empty.json")
    empty.write_text('{"version": 1, "backstores": {}, "hbas": [{"id": 3, "luns": []}]}')
    assert main(["apply", str(empty)]) == 1
    assert capsys.readouterr().err == (
        "vscsihba: LUN 0 of HBA 3 is in use: /dev/sda is mounted on /mnt; unmount it, or use --force\n"
    )
    assert main(["apply", "--force", str(empty)]) == 0


@pytest.mark.parametrize(("prune", "left"), [("named", 1), ("all", 0), ("none", 1)])
def test_prune_says_what_goes(prune: str, left: int, applied: Path, service: FakeService) -> None:
    applied.write_text('{"version": 1, "backstores": {}, "hbas": []}')
    assert main(["apply", "--prune", prune, str(applied)]) == 0
    assert len(service.running.hbas) == left


def test_a_document_comes_from_standard_input(
    service: FakeService, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(document.read_bytes())))
    assert main(["apply", "-"]) == 0
    assert not service.running.empty


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_a_wrong_document_is_one_line_with_its_place_before_anybody_is_asked(
    command: str, no_service: None, document: Path, capsys: Capture
) -> None:
    document.write_text(document.read_text().replace('"size"', '"siez"'))
    assert main([command, str(document)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "$.backstores.d1.siez" in err
    assert 'did you mean "size"?' in err


def test_warnings_go_to_standard_error(service: FakeService, document: Path, capsys: Capture) -> None:
    document.write_text('{"version": 1, "backstores": {"d2": {"handler": "memory", "size": "1MiB"}}}')
    assert main(["plan", str(document)]) == 0
    assert capsys.readouterr().err == "vscsihba: warning: $.backstores.d2: this backstore has no LUN\n"


def test_show_is_a_document_that_changes_nothing(applied: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["show"]) == 0
    (tmp_path / "shown.json").write_text(capsys.readouterr().out)
    assert main(["plan", str(tmp_path / "shown.json"), "--prune", "all"]) == 0
    assert "no changes" in capsys.readouterr().out


def test_save_says_where(applied: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["save"]) == 0
    assert capsys.readouterr().out == f"saved in {tmp_path}/config.json\n"


def test_save_takes_a_relative_path_from_here(
    applied: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["save", "copy.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": f"{tmp_path}/copy.json"}


def test_save_of_nothing_over_something_needs_force(
    applied: Path, service: FakeService, capsys: Capture
) -> None:
    main(["save"])
    service.clear(None, force=True)
    assert main(["save"]) == 2
    assert main(["save", "--force"]) == 0


@pytest.mark.parametrize(("word", "size"), [("3MiB", 3 << 20), ("+1MiB", 2 << 20)])
def test_resize_to_a_size_and_by_a_size(
    word: str, size: int, applied: Path, service: FakeService, capsys: Capture
) -> None:
    assert main(["resize", "d1", word]) == 0
    assert capsys.readouterr().out == f"d1 now has {size >> 20}.0 MiB\n"
    assert service.running.backstores["d1"]["size"] == f"{size >> 20}MiB"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["d1", "512KiB"], "a disk cannot shrink"),
        (["d9", "1GiB"], "there is no backstore 'd9'; known are: d1"),
        (["d9", "+1GiB"], "no LUN has the backstore 'd9'"),
        (["d1", "much"], "'much' is not a size"),
    ],
)
def test_resize_refuses_in_one_line(words: list[str], complaint: str, applied: Path, capsys: Capture) -> None:
    assert main(["resize", *words]) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeConfigfs:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return FakeConfigfs(tmp_path, monkeypatch)


def test_clear_has_the_service_take_away_its_own(
    applied: Path, service: FakeService, kernel: FakeConfigfs, capsys: Capture
) -> None:
    configfs.create_hba(5)
    assert main(["clear", "3"]) == 0
    assert capsys.readouterr().out == "removed HBA 3\n"
    assert service.running.empty
    assert 5 in configfs.observe().hbas


def test_clear_takes_away_what_was_left_besides_the_service(
    applied: Path, service: FakeService, kernel: FakeConfigfs, capsys: Capture
) -> None:
    configfs.create_hba(5)
    assert main(["clear", "5"]) == 0
    assert (service.running.empty, configfs.observe().hbas) == (False, {})
    configfs.create_hba(6)
    capsys.readouterr()
    assert main(["clear", "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": ["remove HBA 3", "HBA 6 with 0 LUNs"]}
    assert service.running.empty


def test_clear_of_what_is_not_there_says_so(
    service: FakeService, kernel: FakeConfigfs, capsys: Capture
) -> None:
    assert main(["clear", "hba9"]) == 2
    assert capsys.readouterr().err == 'vscsihba: there is no HBA 9; see "vscsihba status"\n'


@pytest.mark.parametrize("words", [[], ["3", "--all"], ["256"], ["x"]])
def test_clear_wants_to_know_what(words: list[str], service: FakeService, capsys: Capture) -> None:
    assert main(["clear", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_the_service_refuses_is_one_line(applied: Path, service: FakeService, capsys: Capture) -> None:
    service.refuse = HostError("the kernel refuses", cure="see dmesg")
    assert main(["resize", "d1", "1GiB"]) == 1
    assert capsys.readouterr().err == "vscsihba: the kernel refuses; see dmesg\n"


@pytest.mark.parametrize("words", [["plan", "DOCUMENT"], ["apply", "DOCUMENT"], ["show"], ["save"]])
def test_no_service_is_one_line_with_the_cure(
    words: list[str], no_service: None, document: Path, capsys: Capture
) -> None:
    assert main([str(document) if word == "DOCUMENT" else word for word in words]) == 1
    assert capsys.readouterr().err.startswith("vscsihba: the service is not running; start it: ")
