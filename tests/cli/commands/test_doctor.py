"""doctor: findings on machines that lack something."""

import json
import os
import re
import resource
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from tests.daemon.fake import FakeService
from vscsihba import configfs
from vscsihba.cli.commands import doctor
from vscsihba.cli.doctor import machine, service
from vscsihba.cli.doctor.finding import Finding, collect
from vscsihba.cli.doctor.kernel_objects import check_kernel_objects
from vscsihba.cli.main import main
from vscsihba.config.load import read
from vscsihba.configfs import paths, probe
from vscsihba.daemon import calls, state
from vscsihba.errors import HostError
from vscsihba.handlers.encrypt import libcrypto


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeConfigfs:
    """A kernel of our own, on a machine where everything is as it should be."""
    for name in ("RUN", "STATE", "SAVED"):
        monkeypatch.setattr(machine, name, tmp_path / name.lower())
    monkeypatch.setattr(paths, "UDEV_CONTROL", tmp_path)
    monkeypatch.setattr(state, "SAVED", tmp_path / "config.json")
    monkeypatch.setattr(service, "TARGETCTL", (tmp_path / "none.json", tmp_path / "saveconfig.json"))
    monkeypatch.setattr(calls, "SOCKET", tmp_path / "control.sock")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(probe, "look_for_module", lambda module: "loaded")
    return FakeConfigfs(tmp_path, monkeypatch)


def hba_with_a_disk(hba_id: int) -> configfs.Backstore:
    name = configfs.backstore_name(hba_id, 0)
    backstore = configfs.create_backstore(configfs.BackstoreSpec(name, size=1 << 20, serial=f"s{hba_id}"))
    configfs.create_hba(hba_id)
    configfs.link_lun(hba_id, 0, name)
    return backstore


def served_by(kernel: FakeConfigfs, pid: int, node: Path) -> None:
    process = kernel.proc / str(pid)
    (process / "fd").mkdir(parents=True)
    (process / "comm").write_text("vscsihba\n")
    (process / "fd/9").symlink_to(node)


def findings() -> dict[str, Finding]:
    return {each.title: each for each in collect(doctor.GROUPS)}


def test_a_good_machine_is_fine(kernel: FakeConfigfs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "no problems: this machine can have virtual disks"
    assert all(line.startswith(("OK ", "note ", "     ")) for line in lines[:-2])


def test_json_says_the_same(kernel: FakeConfigfs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert {"title": "rights", "state": "ok", "text": "running as root", "cure": None} in found["findings"]


def test_a_missing_module_is_a_problem_with_its_cure(
    kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(module: str) -> str:
        if module == "tcm_loop":
            raise HostError("the running kernel 6.1 has no module tcm_loop", cure="install another")
        return "loaded"

    monkeypatch.setattr(probe, "look_for_module", look)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^FAIL +modules ", out, re.MULTILINE)
    assert "-> install another" in out
    assert out.endswith("1 problem: see the lines marked FAIL\n")


def test_a_kernel_without_sg_is_a_warning_only(kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(module: str) -> str:
        if module == "sg":
            raise HostError("the running kernel 6.1 has no module sg", cure="install another")
        return "loaded"

    monkeypatch.setattr(probe, "look_for_module", look)
    assert findings()["module sg"] == Finding(
        "module sg",
        "warning",
        "the running kernel 6.1 has no module sg: disks will have no /dev/sgN",
        "install another",
    )


def test_who_is_not_root_is_told(kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert findings()["rights"].cure == "run it with sudo"


def test_a_folder_that_others_can_write_is_a_problem(kernel: FakeConfigfs) -> None:
    machine.SAVED.mkdir()
    machine.SAVED.chmod(0o777)
    assert findings()[f"folder {machine.SAVED}"].cure == f"chmod go-w {machine.SAVED}"


def test_a_folder_that_is_a_file_is_a_problem(kernel: FakeConfigfs) -> None:
    machine.RUN.write_text("")
    assert findings()[f"folder {machine.RUN}"].state == "problem"


def test_no_udev_is_a_warning(kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "UDEV_CONTROL", tmp_path / "missing")
    assert findings()["udev"].state == "warning"


def test_configfs_that_is_not_mounted_is_mounted_by_whoever_needs_it(kernel: FakeConfigfs) -> None:
    assert "not mounted yet" in findings()["configfs"].text


def test_an_hba_that_is_served_is_fine(kernel: FakeConfigfs) -> None:
    backstore = hba_with_a_disk(3)
    assert backstore.uio is not None
    served_by(kernel, 4711, backstore.uio)
    assert findings()["hba3"] == Finding("hba3", "ok", "1 LUN, served by vscsihba (pid 4711)")


def test_an_hba_that_nobody_serves_is_a_problem(kernel: FakeConfigfs) -> None:
    hba_with_a_disk(3)
    found = findings()["hba3"]
    assert (found.state, found.text) == ("problem", "1 LUN, not served")
    assert found.cure is not None
    assert "vscsihba clear 3" in found.cure


def test_an_hba_whose_creation_was_interrupted_is_a_problem(kernel: FakeConfigfs) -> None:
    backstore = hba_with_a_disk(3)
    assert backstore.uio is not None
    served_by(kernel, 4711, backstore.uio)
    (kernel.loopback / configfs.wwn_of(3) / "tpgt_1/lun/lun_4").mkdir()
    assert findings()["hba3"].text == "creation of LUN 4 was interrupted"


def test_a_disk_that_another_program_has_deleted_is_a_problem(
    kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    backstore = hba_with_a_disk(3)
    assert backstore.uio is not None
    served_by(kernel, 4711, backstore.uio)
    kernel.delete_disk(3, 0)
    found = findings()["hba3"]
    assert (found.state, found.text) == (
        "problem",
        "another program has deleted the disk of LUN 0 from Linux",
    )
    assert found.cure is not None
    assert "systemctl restart vscsihba" in found.cure


def test_an_empty_hba_is_a_note(kernel: FakeConfigfs) -> None:
    configfs.create_hba(3)
    assert findings()["hba3"] == Finding("hba3", "note", "no LUNs")


def test_a_backstore_without_a_lun_is_a_warning(kernel: FakeConfigfs) -> None:
    configfs.create_backstore(configfs.BackstoreSpec("vscsihba-old", size=1 << 20, serial="s"))
    found = findings()["backstore vscsihba-old"]
    assert found.state == "warning"
    assert found.cure == f'remove it: "rmdir {kernel.core}/user_0/vscsihba-old"'


def test_an_id_that_somebody_else_has_is_a_note(kernel: FakeConfigfs) -> None:
    kernel.put_behind(configfs.wwn_of(9), 0, kernel.foreign_backstore())
    assert findings()["hba9"].text == "naa.50014055c51ba009 was created by another program: the id is taken"


def test_what_may_not_be_looked_at_is_said(kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> configfs.Observed:
        raise PermissionError(13, "Permission denied", "/sys/kernel/config/target")

    monkeypatch.setattr(configfs, "observe", refuse)
    assert [each.title for each in collect([check_kernel_objects])] == ["/sys/kernel/config/target"]


def test_a_package_that_is_missing_is_a_problem_or_a_note(
    kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(machine, "version", version)
    found = findings()
    assert (found["rich"].state, found["cryptography"].state) == ("problem", "note")
    assert "python3-pycurl" in str(found["pycurl"].cure)


@pytest.mark.parametrize("missing", [False, True])
def test_a_module_without_package_metadata(
    kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda _module: None if missing else object())
    found = findings()["libnbd"]
    assert found.state == ("note" if missing else "ok")
    assert not missing or "install python3-libnbd" in str(found.cure)


def test_without_libcrypto_encryption_is_slow(kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libcrypto, "library", lambda: None)
    assert "install libssl3" in str(findings()["libcrypto"].cure)
    monkeypatch.setattr(libcrypto, "library", lambda: SimpleNamespace(name="libcrypto.so.3"))
    assert findings()["libcrypto"] == Finding("libcrypto", "ok", "libcrypto.so.3")


DOCUMENT = {"version": 1, "backstores": {}, "hbas": [{"id": 3}]}


def test_no_service_is_a_note(kernel: FakeConfigfs) -> None:
    found = findings()
    assert (found["service"].state, found["service"].text) == ("note", "not running")
    assert found["saved"] == Finding("saved", "ok", "nothing, and no disks run")


def test_what_runs_and_is_not_saved_is_a_note(kernel: FakeConfigfs, service: FakeService) -> None:
    service.running = read(DOCUMENT, Path("/"))
    found = findings()
    assert found["service"] == Finding("service", "ok", "running, with 1 HBA and 0 LUNs")
    assert found["saved"].text == "nothing: the next start restores no disks"
    state.SAVED.write_text('{"version": 1}')
    assert findings()["saved"].text == "0 HBAs and 0 LUNs, which differ from the running configuration"
    state.SAVED.write_text(json.dumps(DOCUMENT))
    assert findings()["saved"] == Finding("saved", "ok", f"1 HBA and 0 LUNs in {state.SAVED}")


def exporting(folder: Path, **initiator: str) -> dict[str, object]:
    """Return a document with an export."""
    export = {
        "transport": "iscsi",
        "name": "iqn.2026-11.example:store",
        "portals": ["127.0.0.1:3260"],
        "initiators": [{"name": "iqn.2026-11.example:host1", **initiator}],
        "luns": [{"lun": 0, "backstore": "a"}],
    }
    return {
        "version": 1,
        "backstores": {"a": {"handler": "memory", "size": "1MiB"}},
        "hbas": [{"id": 3, "luns": [{"lun": 0, "backstore": "a"}]}],
        "exports": [export],
    }


def test_exports_need_the_module_of_the_kernel(
    kernel: FakeConfigfs, service: FakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "module iscsi_target_mod" not in findings()
    service.running = read(exporting(tmp_path), tmp_path)
    assert findings()["module iscsi_target_mod"].state == "ok"
    assert findings()["running exports"].state == "ok"

    def look(module: str) -> str:
        if module == "iscsi_target_mod":
            raise HostError("the running kernel 6.1 has no module iscsi_target_mod", cure="install another")
        return "loaded"

    monkeypatch.setattr(probe, "look_for_module", look)
    assert findings()["module iscsi_target_mod"].state == "problem"


def test_a_secret_that_others_can_read_is_a_problem_before_the_next_start(
    kernel: FakeConfigfs, tmp_path: Path
) -> None:
    secret = tmp_path / "u1.chap"
    secret.write_text("secret-of-u1\n")
    secret.chmod(0o644)
    state.SAVED.write_text(json.dumps(exporting(tmp_path, user="u1", password_file=str(secret))))
    found = findings()["saved exports"]
    assert found.state == "problem"
    assert "others can read" in found.text
    secret.chmod(0o600)
    assert findings()["saved exports"].state == "ok"


def test_a_saved_document_that_is_wrong_is_a_problem(kernel: FakeConfigfs) -> None:
    state.SAVED.write_text('{"version": 1, "hbsa": []}')
    found = findings()["saved"]
    assert found.state == "problem"
    assert "$.hbsa" in found.text


def test_a_service_that_refuses_is_a_problem(kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_daemon: calls.Daemon) -> None:
        raise HostError("permission denied", cure="be root")

    monkeypatch.setattr(calls.Daemon, "show", refuse)
    assert findings()["service"] == Finding("service", "problem", "permission denied", "be root")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"storage_objects": [{"name": "x", "plugin": "fileio"}]}'])
def test_what_targetctl_restores_of_others_is_not_our_business(text: str, kernel: FakeConfigfs) -> None:
    service.TARGETCTL[1].write_text(text)
    assert "targetctl" not in findings()


def test_what_targetctl_restores_of_ours_is_a_warning(kernel: FakeConfigfs) -> None:
    ours = {"name": "vscsihba0-lun0", "plugin": "user", "config": "vscsihba/hba0/lun0"}
    service.TARGETCTL[1].write_text(json.dumps({"storage_objects": [ours]}))
    found = findings()["targetctl"]
    assert found.state == "warning"
    assert "has vscsihba0-lun0: at the next boot" in found.text


def test_a_low_limit_of_open_files_is_a_warning_that_says_what_it_allows(
    kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 524288))
    assert findings()["open files"] == Finding(
        "open files", "ok", "524,288 (hard limit), enough for about 65,528 LUNs in each engine"
    )
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 4096))
    found = findings()["open files"]
    assert (found.state, found.text) == (
        "warning",
        "4,096 (hard limit), enough for about 504 LUNs in each engine",
    )


@pytest.mark.parametrize("program", ["qemu-storage-daemon", "qemu-img", "qemu-nbd"])
def test_a_program_that_one_handler_needs_is_a_note(
    kernel: FakeConfigfs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = findings()[program]
    assert missing.state == "note"
    assert "the handler qemu needs it" in str(missing.cure)
    (tmp_path / program).write_text("#!/bin/sh\n")
    (tmp_path / program).chmod(0o755)
    there = findings()[program]
    assert (there.state, there.text) == ("ok", str(tmp_path / program))
