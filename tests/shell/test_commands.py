"""The commands of the shell: what they make of the document, and how they refuse."""

import json
import socket
from pathlib import Path
from unittest import mock

import pytest

from tests.daemon.fake import FakeService
from tests.shell.conftest import Run
from vscsihba.config.dump import builtins
from vscsihba.config.load import read
from vscsihba.daemon.calls import Daemon
from vscsihba.errors import HostError, UsageError, VscsihbaError
from vscsihba.shell.session import Session


def document(service: FakeService) -> dict[str, object]:
    return builtins(service.running)


def test_a_disk_is_made_in_three_lines(disk: None, service: FakeService) -> None:
    assert document(service) == {
        "version": 1,
        "backstores": {
            "d1": {"handler": "memory", "size": "1MiB"},
            "d2": {"handler": "memory", "size": "1MiB"},
        },
        "hbas": [{"id": 0, "luns": [{"lun": 0, "backstore": "d1"}]}],
    }


def test_what_was_done_is_said(run: Run) -> None:
    assert run("/backstores/memory create name=d1 size=1GiB") == "+ add backstore d1: memory 1GiB\n"
    assert run("/hbas create 7 engines=2") == "+ add HBA 7, served by 2 engines\n"
    assert run("/hbas/hba7 create d1 lun=5 read_only=true") == "+ add LUN 5 of HBA 7: d1\n"


def test_numbers_are_the_first_free_ones(run: Run, disk: None, service: FakeService) -> None:
    run("/hbas create")
    run("/hbas/hba0 create backstore=d2")
    assert service.running.place_of("d2") == (0, 1)
    assert [hba.id for hba in service.running.hbas] == [0, 1]


def test_relative_paths_begin_here(
    run: Run, service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.img").write_bytes(bytes(1 << 20))
    run("/backstores/file create d1 path=a.img")
    assert service.running.backstores["d1"]["path"] == f"{tmp_path}/a.img"


def test_filters_say_what_they_sit_on_and_fans_on_what_they_stand(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    base, other = tmp_path / "base.img", tmp_path / "b.img"
    for file in (base, other):
        file.write_bytes(bytes(1 << 20))
    run(f"/backstores/readonly create name=d1 next='cow:{tmp_path}/over.cow;create=true|{base}'")
    run(f"/backstores/split create name=d2 legs={base},{other}")
    first, second = service.running.backstores["d1"], service.running.backstores["d2"]
    assert first["next"] == {
        "handler": "cow",
        "path": f"{tmp_path}/over.cow",
        "create": True,
        "next": {"handler": "file", "path": str(base), "read_only": True},
    }
    assert [leg["path"] for leg in second["legs"]] == [str(base), str(other)]  # type: ignore[attr-defined]


def test_a_backstore_whose_storage_is_missing_is_refused_at_once(
    run: Run, service: FakeService, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"\$.backstores.d1: {tmp_path}/a.img: no such file; create it"):
        run(f"/backstores/file create d1 path={tmp_path}/a.img")
    uri = f"nbd+unix:///x?socket={tmp_path}/sock"
    with (
        pytest.raises(UsageError, match=f"there is no socket {tmp_path}/sock; start the server"),
        mock.patch("vscsihba.handlers.nbd.handler.libnbd"),
    ):
        run(f"/backstores/nbd create d1 uri={uri}")
    assert "d1" not in service.running.backstores
    with socket.socket(socket.AF_UNIX) as server, mock.patch("vscsihba.handlers.nbd.handler.libnbd"):
        server.bind(f"{tmp_path}/sock")
        run(f"/backstores/nbd create d1 uri={uri}")
    assert "d1" in service.running.backstores


def test_a_lun_is_deleted_and_its_backstore_stays(run: Run, disk: None, service: FakeService) -> None:
    assert run("/hbas/hba0/lun0 delete") == "- remove LUN 0 of HBA 0: d1\n"
    assert (sorted(service.running.backstores), service.running.place_of("d1")) == (["d1", "d2"], None)
    run("/hbas/hba0 create d1 3")
    assert run("/hbas/hba0 delete 3") == "- remove LUN 3 of HBA 0: d1\n"


def test_an_hba_is_deleted_and_backstores_stay(run: Run, disk: None, service: FakeService) -> None:
    run("/hbas create 4")
    run("/hbas delete hba0")
    assert [hba.id for hba in service.running.hbas] == [4]
    assert sorted(service.running.backstores) == ["d1", "d2"]


def test_a_backstore_is_deleted_when_nothing_shows_it(run: Run, disk: None, service: FakeService) -> None:
    with pytest.raises(UsageError, match=r"d1 belongs to /hbas/hba0/lun0; first run: /hbas/hba0/lun0 delete"):
        run("/backstores/memory delete d1")
    run("/backstores/memory/d2 delete")
    assert sorted(service.running.backstores) == ["d1"]


def test_a_disk_in_use_is_deleted_by_force_only(run: Run, disk: None, service: FakeService) -> None:
    service.busy.add((0, 0))
    with pytest.raises(VscsihbaError, match=r"unmount it, or use force=true$") as refused:
        run("/hbas/hba0/lun0 delete")
    assert refused.value.exit_code == 1
    run("/hbas/hba0/lun0 delete force=true")
    assert service.running.place_of("d1") is None


@pytest.mark.parametrize("node", ["/hbas/hba0/lun0", "/backstores/memory/d1"])
@pytest.mark.parametrize(("word", "size"), [("3MiB", "3MiB"), ("+1MiB", "2MiB")])
def test_a_disk_is_enlarged(
    node: str, word: str, size: str, run: Run, disk: None, service: FakeService
) -> None:
    assert run(f"{node} resize {word}") == f"d1 now has {size[0]}.0 MiB\n"
    assert service.running.backstores["d1"]["size"] == size


def test_what_no_disk_shows_cannot_grow_by_a_size(run: Run, disk: None) -> None:
    with pytest.raises(UsageError, match="no LUN has the backstore d2; give the whole size"):
        run("/backstores/memory/d2 resize +1MiB")


def test_attributes_of_a_lun(run: Run, disk: None, service: FakeService) -> None:
    run("/hbas/hba0/lun0 set attribute queue_depth=4 command_timeout=60")
    assert "queue_depth=4\n" in run("/hbas/hba0/lun0 get attribute")
    assert (
        run("/hbas/hba0/lun0 get attribute command_timeout removable")
        == "command_timeout=60\nremovable=false\n"
    )
    run("/hbas/hba0/lun0 set attribute queue_depth=")
    assert document(service)["hbas"] == [
        {"id": 0, "luns": [{"lun": 0, "backstore": "d1", "command_timeout": 60}]}
    ]


def test_text_that_looks_like_a_number_stays_text(run: Run, disk: None, service: FakeService) -> None:
    run("/hbas/hba0/lun0 set attribute serial=0123 replace=true")
    hba = service.running.hba(0)
    assert hba is not None
    assert hba.luns[0].serial == "0123"


def test_attributes_of_an_hba_and_of_a_backstore(run: Run, disk: None, service: FakeService) -> None:
    run("/hbas/hba0 set attribute engines=2")
    assert run("/hbas/hba0 get attribute") == "engines=2\n"
    run("/backstores/memory/d1 set attribute block_size=4096 replace=yes")
    assert service.running.backstores["d1"]["block_size"] == 4096
    assert "block_size=4096" in run("/backstores/memory/d1 get")


def test_what_needs_replace_says_so(run: Run, disk: None) -> None:
    with pytest.raises(UsageError, match=r"use replace=true$"):
        run("/hbas/hba0/lun0 set attribute removable=true")


def test_set_without_names_explains(run: Run, disk: None) -> None:
    assert "queue_depth (whole number from 1 to 1024): Commands that Linux" in run(
        "/hbas/hba0/lun0 set attribute"
    )


def test_the_configuration_is_saved_cleared_and_restored(
    run: Run, disk: None, service: FakeService, tmp_path: Path, session: Session
) -> None:
    before = document(service)
    assert session.context.unsaved
    assert run("saveconfig") == f"saved in {tmp_path}/config.json\n"
    assert not session.context.unsaved
    with pytest.raises(UsageError, match="use clearconfig confirm=true"):
        run("clearconfig")
    run("clearconfig confirm=true")
    assert service.running.empty
    with pytest.raises(UsageError, match="use force=true"):
        run("saveconfig")
    run(f"restoreconfig {tmp_path}/config.json")
    assert document(service) == before


def test_a_copy_is_not_what_the_next_start_restores(
    run: Run, disk: None, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("saveconfig copy.json") == f"saved in {tmp_path}/copy.json\n"
    assert session.context.unsaved


def test_going_about(run: Run, disk: None) -> None:
    run("/hbas/hba0")
    assert run("pwd") == "/hbas/hba0\n"
    assert run("lun0 info").startswith("hba        0\n")
    run("cd ..")
    assert run("pwd") == "/hbas\n"
    run("cd")
    assert run("pwd") == "/\n"
    assert run("/hbas/hba0/* pwd") == "[/hbas/hba0/lun0]\n/hbas/hba0/lun0\n"


def test_who_stands_on_what_goes_away_stands_above_it(run: Run, disk: None, service: FakeService) -> None:
    run("cd /hbas/hba0/lun0")
    run("delete")
    assert run("pwd") == "/hbas/hba0\n"


def test_status_is_a_line_a_lun(run: Run, disk: None) -> None:
    assert run("status") == "hba0/lun0     /dev/sda       1.0 MiB  d1: running, 120 IOPS\n"
    run("/hbas/hba0/lun0 delete")
    assert run("status") == "no LUNs\n"


def test_info_of_a_backstore(run: Run, disk: None) -> None:
    found = dict(
        line.split(None, 1) for line in run("/backstores/memory/d1 info").splitlines() if line[:5] != "shown"
    )
    assert json.loads(found["document"]) == {"handler": "memory", "size": "1MiB"}


def test_help_lists_the_commands_and_explains_one(run: Run) -> None:
    everything = run("/hbas help")
    assert "  create [hba] [engines]" in everything
    assert "bookmarks" not in everything
    assert run("/hbas help create").startswith("create [hba] [engines]\n\nCreate an HBA")


def test_help_fits_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    lines = run("help").splitlines()
    assert max(map(len, lines)) <= 70
    text = " ".join(" ".join(lines).split())
    assert (
        "restoreconfig [savefile] [replace] [force] Apply the configuration in SAVEFILE, by default" in text
    )


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("craete", r"/ has no command 'craete'; known are|did you mean"),
        ("/nowhere/at/all ls", r'^there is no /nowhere/at/all; see "ls /"$'),
        ("ls /nowhere", r"^there is no /nowhere; "),
        ("ls / deep", "the tree depth must be a number"),
        ("help nothing", "/ has no command 'nothing'"),
        ("/backstores/memory create", r"create: missing a required argument: 'name'; use: create name"),
        ("/backstores/memory create d1 size=much", r"\$.backstores.d1.size: 'much' is not a size"),
        ("/backstores/memory create d1 siez=1MiB", 'did you mean "size"'),
        ("/backstores/memory create 'd 1' size=1MiB", r"\$.backstores"),
        ("/backstores/memory create d1 d2 d3", "too many positional arguments"),
        ("/backstores/memory delete d9", "there is no d9"),
        ("/hbas create 256", "256"),
        ("/hbas create seven", "number 'seven' is not a number"),
        ("/hbas delete 3", "there is no hba3"),
        ("/hbas create engines=many", "engines 'many' is not a number"),
        ("clearconfig confirm=perhaps", "confirm=perhaps is neither true nor false"),
        ("restoreconfig /no/such/file", "/no/such/file: No such file"),
    ],
)
def test_an_error_is_one_line_with_its_cause(line: str, complaint: str, run: Run) -> None:
    with pytest.raises(UsageError, match=complaint) as refused:
        run(line)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("/backstores/file create d1 path=/x", "backstore d1 already exists"),
        ("/hbas create 0", "hba0 already exists"),
        ("/hbas/hba0 create d2 0", "hba0 already has a lun0"),
        ("/hbas/hba0 create d3", "there is no backstore 'd3'; known are: d1, d2"),
        ("/hbas/hba0 create d1", "the backstore d1 already belongs to LUN 0 of HBA 0"),
        ("/hbas/hba0 create d2 colour=red", "colour"),
        ("/hbas/hba0/lun0 set attribute colour=red", "/hbas/hba0/lun0 has no attribute 'colour'"),
        ("/hbas/hba0/lun0 set group colour=red", "unknown group 'group'; use attribute"),
        ("/hbas/hba0/lun0 set attribute queue_depth=5000", "a whole number from 1 to 1024"),
        ("/hbas/hba0/lun0 resize 1KiB", "a disk cannot shrink"),
    ],
)
def test_what_contradicts_what_there_is_is_refused(
    line: str, complaint: str, run: Run, disk: None, service: FakeService
) -> None:
    before = document(service)
    with pytest.raises(UsageError, match=complaint):
        run(line)
    assert document(service) == before


def test_what_somebody_else_did_meanwhile_is_not_undone(
    run: Run, disk: None, service: FakeService, session: Session
) -> None:
    session.context.look()
    session.context.look = lambda: None  # type: ignore[method-assign]  # between the look and the change
    Daemon(service.socket).apply(read({"version": 1, "hbas": [{"id": 9}]}, Path("/")), prune="none")
    with pytest.raises(
        VscsihbaError,
        match="another program has changed the configuration meanwhile; check it, and try again",
    ):
        run("/hbas delete 0")
    assert [hba.id for hba in service.running.hbas] == [0, 9]


def test_what_the_service_refuses_is_passed_on(run: Run, disk: None, service: FakeService) -> None:
    service.refuse = HostError("the kernel refuses", cure="see dmesg")
    with pytest.raises(VscsihbaError, match="the kernel refuses; see dmesg") as refused:
        run("/hbas create")
    assert refused.value.exit_code == 1


def test_a_script_ends_at_its_first_error(session: Session, service: FakeService) -> None:
    script = ["# two HBAs", "", "/hbas create 1", "/hbas create 1", "/hbas create 2"]
    with pytest.raises(UsageError, match=r"^line 4: hba1 already exists; choose another number$"):
        session.run_script(script)
    assert [hba.id for hba in service.running.hbas] == [1]


def test_a_script_ends_where_it_says_so(session: Session, service: FakeService) -> None:
    session.run_script(["/hbas create 1", "exit", "/hbas create 2"])
    assert [hba.id for hba in service.running.hbas] == [1]
