"""Devices are recorded under the kernel's names, and a stack over another device is refused."""

from pathlib import Path

import pytest

from vscsihba.daemon import known_devices
from vscsihba.daemon.known_devices import accepted, check_devices
from vscsihba.errors import HostError


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """The block devices of a machine and their identities."""
    devices: dict[str, str | None] = {}
    monkeypatch.setattr(known_devices, "_is_device", lambda path: str(Path(path).resolve()) in devices)
    monkeypatch.setattr(known_devices, "_identity", lambda path: devices[str(Path(path).resolve())])
    return devices


def test_devices_of_every_layer_are_recorded_and_files_are_not(
    found: dict[str, str | None], tmp_path: Path
) -> None:
    found |= {"/dev/sdb": "naa.1", "/dev/sdc": "naa.2"}
    base = {"handler": "offset", "offset": 512, "next": "/dev/sdc"}
    stack = {"handler": "cow", "path": "/dev/sdb", "next": base}
    plain = {"handler": "file", "path": str(tmp_path / "a.img")}
    assert accepted({}, [stack, plain]) == {"/dev/sdb": "naa.1", "/dev/sdc": "naa.2"}


def test_a_link_leads_to_the_same_device_always(found: dict[str, str | None], tmp_path: Path) -> None:
    found["/dev/sdb"] = "naa.1"
    (tmp_path / "by-id").symlink_to("/dev/sdb")
    assert accepted({}, [{"handler": "file", "path": str(tmp_path / "by-id")}]) == {}


def test_legs_of_a_mirror_are_known_by_their_marks(found: dict[str, str | None]) -> None:
    found |= {"/dev/sdb": "naa.1", "/dev/sdc": "naa.2"}
    mirror = {"handler": "mirror", "path": "/srv/state", "legs": ["/dev/sdb", "/dev/sdc"]}
    assert accepted({}, [mirror]) == {}
    check_devices({"/dev/sdb": "naa.9"}, mirror)


def test_another_device_is_refused(found: dict[str, str | None]) -> None:
    found["/dev/sdb"] = "naa.1"
    stack = {"handler": "file", "path": "/dev/sdb"}
    known = accepted({"/dev/sdd": "naa.4"}, [stack])
    assert known == {"/dev/sdb": "naa.1", "/dev/sdd": "naa.4"}
    check_devices(known, stack)
    found["/dev/sdb"] = "naa.2"
    with pytest.raises(HostError, match=r"/dev/sdb is another device .*: naa\.2, not naa\.1"):
        check_devices(known, stack)
    assert accepted(known, [stack])["/dev/sdb"] == "naa.2"


def test_a_device_without_a_name_of_its_own_is_recorded_no_longer(found: dict[str, str | None]) -> None:
    found["/dev/sdb"] = None
    stack = {"handler": "file", "path": "/dev/sdb"}
    with pytest.raises(HostError, match="a device without a name of its own, not naa"):
        check_devices({"/dev/sdb": "naa.1"}, stack)
    assert accepted({"/dev/sdb": "naa.1"}, [stack]) == {}
    check_devices({}, stack)


def test_what_cannot_be_read_is_left_for_the_engine_to_refuse(found: dict[str, str | None]) -> None:
    found["/dev/sdb"] = "naa.2"
    check_devices({"/dev/sdb": "naa.1"}, {"handler": "of-another-version", "path": "/dev/sdb"})
