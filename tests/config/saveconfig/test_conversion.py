"""Every kind of entry of LIO's file: its counterpart, or the line that says why it has none."""

from pathlib import Path
from typing import Any

import pytest

from vscsihba.config.load import read
from vscsihba.config.model import Document
from vscsihba.config.saveconfig import Conversion, convert
from vscsihba.errors import ConfigError

UUID = "6a3a5fc2-6c4d-4b26-9d7e-0123456789ab"
NAA = "naa.60014056a3a5fc26c4d4b269d7e01234"
SECRET = "twelve-bytes-or-more"
TARGET = "iqn.2026-11.example:store"
HOST = "iqn.2026-11.example:host1"


def storage(plugin: str = "fileio", name: str = "d1", **keys: Any) -> dict[str, Any]:
    defaults: dict[str, dict[str, Any]] = {
        "fileio": {"dev": "/srv/d1.img", "size": 1 << 20, "write_back": True},
        "block": {"dev": "/dev/disk/by-id/scsi-1", "readonly": False},
        "ramdisk": {"size": 1 << 20},
        "pscsi": {"dev": "/dev/sg3"},
        "user": {"config": "qcow//srv/d1.qcow2", "size": 1 << 20, "hw_max_sectors": 128},
    }
    attributes = {"emulate_model_alias": 1, "block_size": 512, **keys.pop("attributes", {})}
    return {"plugin": plugin, "name": name, "wwn": UUID, "attributes": attributes, **defaults[plugin], **keys}


def lun(path: str = "/backstores/fileio/d1", index: int = 0) -> dict[str, Any]:
    return {"index": index, "storage_object": path, "alias": "aa"}


def loopback(*luns: dict[str, Any]) -> dict[str, Any]:
    return {"fabric": "loopback", "wwn": "naa.5001405aaaaaaaaa", "tpgs": [{"tag": 1, "luns": list(luns)}]}


def iscsi(**group: Any) -> dict[str, Any]:
    attributes = {
        "authentication": 0, "generate_node_acls": 0, "demo_mode_write_protect": 1, "default_cmdsn_depth": 64,
        "login_timeout": 15, **group.pop("attributes", {}),
    }  # fmt: skip
    portal = {"ip_address": "192.0.2.7", "port": 3260, "iser": False, "offload": False}
    made = {"tag": 1, "enable": True, "luns": [lun()], "portals": [portal], "node_acls": [], **group}
    return {"fabric": "iscsi", "wwn": TARGET, "tpgs": [made | {"attributes": attributes}]}


def acl(*, protect: bool = False, index: int = 0, **keys: Any) -> dict[str, Any]:
    mapped = {"index": index, "tpg_lun": 0, "write_protect": protect, "alias": "bb"}
    return {"node_wwn": HOST, "mapped_luns": [mapped], **keys}


def converted(
    *objects: dict[str, Any], targets: list[dict[str, Any]] | None = None, **keys: Any
) -> Conversion:
    found = convert({"storage_objects": list(objects), "targets": targets or [], **keys}, "/secrets")
    document(found)
    return found


def document(found: Conversion) -> Document:
    """Return the document, which plan and apply accept."""
    return read(found.document, Path("/"))


def test_a_disk_keeps_its_identity() -> None:
    found = converted(storage(), targets=[loopback(lun())])
    (made,) = document(found).hbas[0].luns
    assert (made.serial, made.wwn, made.vendor, made.product) == (UUID, NAA, "LIO-ORG", "d1")
    assert found.notes == []


def test_without_an_alias_the_product_is_that_of_the_plugin() -> None:
    objects = [
        storage("fileio", "a", attributes={"emulate_model_alias": 0}),
        storage("user", "b", wwn="another", attributes={"emulate_model_alias": 1}),
    ]
    targets = [loopback(lun("/backstores/fileio/a"), lun("/backstores/user/b", 1))]
    luns = document(converted(*objects, targets=targets)).hbas[0].luns
    assert [each.product for each in luns] == ["FILEIO", "TCMU device"]


def test_a_short_serial_is_filled_with_zeroes() -> None:
    found = converted(storage(wwn="my-ab1"), targets=[loopback(lun())])
    assert document(found).hbas[0].luns[0].wwn == "naa.6001405ab1" + "0" * 22


@pytest.mark.parametrize(
    ("entry", "stack"),
    [
        (storage(), {"handler": "file", "path": "/srv/d1.img"}),
        (storage("block"), {"handler": "file", "path": "/dev/disk/by-id/scsi-1"}),
        (storage("block", readonly=True), {"read_only": True}),
        (storage(attributes={"block_size": 4096}), {"block_size": 4096}),
        (storage("ramdisk"), {"handler": "memory", "size": 1 << 20, "label": "d1"}),
        (storage("ramdisk", nullio=True), {"handler": "null", "size": 1 << 20}),
        (storage("pscsi"), {"handler": "sg", "path": "/dev/sg3"}),
        (storage("user"), {"handler": "qemu", "path": "/srv/d1.qcow2"}),
        (storage("user", control="max_data_area_mb=8,hw_block_size=4096"), {"block_size": 4096}),
        (storage("user", config="file//srv/x.img"), {"handler": "file", "path": "/srv/x.img"}),
        (
            storage("user", config="rbd/disks/vm1;osd_op_timeout=30;conf=/etc/ceph/other.conf;id=bob"),
            {"handler": "rbd", "pool": "disks", "image": "vm1", "timeout": 30, "conf": "/etc/ceph/other.conf",
             "user": "bob"},
        ),
        (storage("user", config="rbd/disks/space/vm1"), {"namespace": "space", "image": "vm1"}),
    ],
)  # fmt: skip
def test_every_kind_of_storage(entry: dict[str, Any], stack: dict[str, object]) -> None:
    found = converted(entry).document["backstores"]["d1"]
    assert {key: found[key] for key in stack} == stack


@pytest.mark.parametrize(
    ("entry", "note"),
    [
        (storage("user", config="fbo//srv/x"), "tcmu-runner's handler 'fbo' has no counterpart"),
        (storage("user", config="zbc/lba-512@/srv/x"), "tcmu-runner's handler 'zbc' has no counterpart"),
        (storage("user", config="glfs/v@h/p"), "tcmu-runner's handler 'glfs' has no counterpart"),
        (storage("user", config="vscsihba/hba0"), "it is a disk of vscsihba"),
        (storage("pscsi", dev="/dev/sdb"), "needs a device /dev/sgN"),
        (storage() | {"plugin": "rd_dif"}, "storage of the kind 'rd_dif'"),
    ],
)
def test_storage_without_a_counterpart_is_left_out_with_its_reason(entry: dict[str, Any], note: str) -> None:
    found = converted(entry, targets=[loopback(lun(f"/backstores/{entry['plugin']}/d1"))])
    assert note in found.notes[0]
    assert found.notes[0].startswith(f"storage_objects[0] ({entry['plugin']} d1): left out: ")
    assert "its storage has no counterpart" in found.notes[1]
    assert (found.document["backstores"], found.document["hbas"]) == ({}, [])


@pytest.mark.parametrize(
    ("entry", "note"),
    [
        (storage(write_back=False), "write_back is off"),
        (storage("ramdisk"), "begins empty"),
        (storage("pscsi"), "identity of the device itself"),
        (storage(attributes={"emulate_caw": 0}), "attribute emulate_caw=0 is left out"),
        (
            storage(alua_tpgs=[{"name": "default_tg_pt_gp"}, {"name": "other"}]),
            "ALUA group 'other' is left out",
        ),
        (storage("user", control="hw_block_size=512,x=1"), "the setting 'x=1' is left out"),
        (storage("user", config="rbd/p/i;x=1"), "the option 'x=1' of rbd is left out"),
        (storage(name="a b"), "it is called a-b now"),
    ],
)
def test_differences_are_said(entry: dict[str, Any], note: str) -> None:
    assert note in "\n".join(converted(entry).notes)


def test_names_that_two_plugins_use_differ() -> None:
    found = converted(
        storage(), storage("block", wwn="x"), storage("ramdisk", wwn="y"), storage("block", "_", wwn="z")
    )
    assert list(found.document["backstores"]) == ["d1", "d1-block", "d1-ramdisk", "d_"]


@pytest.mark.parametrize(("sectors", "wanted"), [(256, 256), (128, None), (4096, None)])
def test_a_limit_of_a_command_that_somebody_has_chosen_is_kept(sectors: int, wanted: int | None) -> None:
    entry = storage("user", hw_max_sectors=sectors)
    found = converted(entry, targets=[loopback(lun("/backstores/user/d1"))])
    assert document(found).hbas[0].luns[0].max_sectors == wanted


def test_each_loopback_target_is_an_hba() -> None:
    objects = [storage(), storage(name="d2", wwn="two", dev="/srv/d2.img")]
    targets = [loopback(lun(index=5)), loopback(lun("/backstores/fileio/d2"))]
    hbas = document(converted(*objects, targets=targets)).hbas
    assert [(hba.id, [each.lun for each in hba.luns]) for hba in hbas] == [(0, [5]), (1, [0])]


def test_storage_that_two_targets_show_has_one_lun() -> None:
    found = converted(storage(), targets=[loopback(lun()), loopback(lun())])
    assert "another LUN shows this storage" in found.notes[0]
    assert len(found.document["hbas"]) == 1


def test_exported_storage_gets_a_lun_that_only_the_export_shows() -> None:
    found = converted(storage(), targets=[iscsi(node_acls=[acl()])])
    made = document(found)
    assert (made.hbas[0].luns[0].wwn, made.hbas[0].luns[0].local, found.notes) == (NAA, False, [])
    (export,) = made.exports
    assert (export.name, export.portals, export.open) == (TARGET, ("192.0.2.7:3260",), False)
    assert [each.name for each in export.initiators] == [HOST]


def test_storage_that_nobody_sees_is_said() -> None:
    assert converted(storage()).notes == ["backstore d1: no target shows it"]


def with_secret(**keys: Any) -> dict[str, Any]:
    return acl(**{"chap_userid": "host1", "chap_password": SECRET, **keys})


def test_secrets_go_into_files() -> None:
    mutual = {"chap_mutual_userid": "store", "chap_mutual_password": "another-secret-of-it"}
    target = iscsi(attributes={"authentication": 1}, node_acls=[with_secret(**mutual)])
    found = converted(storage(), targets=[target])
    (initiator,) = document(found).exports[0].initiators
    assert (initiator.user, initiator.mutual_user) == ("host1", "store")
    files = {Path(path).name for path in initiator.secret_files.values()}
    assert files == set(found.secrets)
    assert sorted(found.secrets.values()) == ["another-secret-of-it\n", f"{SECRET}\n"]
    assert SECRET not in str(found.document) + str(found.notes)


@pytest.mark.parametrize(
    ("group", "note"),
    [
        ({"attributes": {"authentication": 1}, "node_acls": [acl()]}, "it has none"),
        (
            {"attributes": {"authentication": 1}, "node_acls": [with_secret(chap_password="short")]},
            "12 to 255 bytes",
        ),
        ({"node_acls": [acl(index=3)]}, "under another number, 3"),
        ({"node_acls": [acl() | {"node_wwn": "Not.A.Name"}]}, "a document cannot have this"),
    ],
)
def test_an_initiator_that_would_need_less_than_before_is_left_out(group: dict[str, Any], note: str) -> None:
    found = converted(storage(), targets=[iscsi(**group)])
    assert any(note in each and "left out" in each for each in found.notes), found.notes
    assert document(found).exports[0].initiators == ()
    assert not document(found).exports[0].open
    assert found.secrets == {}


def test_a_secret_that_the_target_does_not_ask_for_is_left_out() -> None:
    found = converted(storage(), targets=[iscsi(node_acls=[with_secret()])])
    assert "asks for none (authentication=0)" in "\n".join(found.notes)
    assert (document(found).exports[0].initiators[0].user, found.secrets) == (None, {})


def test_a_lun_that_is_protected_from_one_initiator_is_protected_from_all() -> None:
    found = converted(storage(), targets=[iscsi(node_acls=[acl(protect=True)])])
    assert document(found).exports[0].luns[0].read_only is True
    assert "LUN 0 refuses writes of all initiators" in "\n".join(found.notes)


@pytest.mark.parametrize("protect", [0, 1])
def test_a_target_for_everybody_is_an_open_export(protect: int) -> None:
    attributes = {"generate_node_acls": 1, "demo_mode_write_protect": protect}
    (export,) = document(converted(storage(), targets=[iscsi(attributes=attributes)])).exports
    assert (export.open, export.luns[0].read_only, export.initiators) == (True, bool(protect), ())


@pytest.mark.parametrize(
    ("group", "note"),
    [
        ({"enable": False}, "not enabled"),
        ({"attributes": {"generate_node_acls": 1, "authentication": 1}}, "open to all initiators cannot ask"),
        ({"portals": []}, "no portal is left"),
        ({"portals": [{"ip_address": "::1", "port": 3260, "iser": True}]}, "no portal is left"),
    ],
)
def test_a_target_that_would_admit_more_is_left_out(group: dict[str, Any], note: str) -> None:
    found = converted(storage(), targets=[iscsi(**group)])
    assert note in "\n".join(found.notes)
    assert "exports" not in found.document


def test_settings_of_a_target_are_kept() -> None:
    group = {
        "attributes": {"default_cmdsn_depth": 128},
        "parameters": {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C,None"},
        "portals": [{"ip_address": "[2001:db8::7]", "port": 3260}],
    }
    (export,) = document(converted(storage(), targets=[iscsi(**group)])).exports
    assert export.cmdsn_depth == 128
    assert (export.header_digest, export.data_digest) == ("CRC32C", None)
    assert export.portals == ("[2001:db8::7]:3260",)


def test_an_initiator_sees_the_luns_that_it_saw() -> None:
    objects = [storage(), storage(name="d2", wwn="two", dev="/srv/d2.img")]
    luns = [lun(), lun("/backstores/fileio/d2", 1)]
    (export,) = document(converted(*objects, targets=[iscsi(luns=luns, node_acls=[acl()])])).exports
    assert export.initiators[0].luns == (0,)


def test_other_transports_and_discovery_are_said() -> None:
    target = {"fabric": "vhost", "wwn": "naa.1", "tpgs": []}
    found = converted(targets=[target], fabric_modules=[{"fabric": "iscsi", "discovery_enable_auth": True}])
    assert found.notes == [
        "targets[0] (vhost naa.1): left out: no such transport",
        "fabric_modules[0]: the CHAP secret of discovery is left out",
    ]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([], ""),
        ({"storage_objects": {}}, "storage_objects"),
        ({"storage_objects": [7]}, "storage_objects[0]"),
        ({"storage_objects": [{"plugin": "fileio"}]}, "storage_objects[0].name"),
        ({"storage_objects": [storage() | {"dev": 3}]}, "storage_objects[0].dev"),
        ({"storage_objects": [storage("ramdisk") | {"size": "big"}]}, "storage_objects[0].size"),
        ({"targets": [iscsi(enable="maybe")]}, "targets[0].tpgs[0].enable"),
    ],
)
def test_another_file_is_refused_with_the_place(value: object, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(value, "/secrets")
    assert str(caught.value).startswith(f"{place}: ")
