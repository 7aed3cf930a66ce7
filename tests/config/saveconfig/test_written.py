"""Files that Debian 12's targetcli 2.1.53 and tcmu-runner 1.5.4 have written, and the names of the disks.

The names are those of /dev/disk/by-id on the machine on which the file was saved.
"""

import json
from pathlib import Path
from typing import Any

from vscsihba.config.load import read, warnings
from vscsihba.config.model import Document, Lun
from vscsihba.config.saveconfig import Conversion, convert

WRITTEN = Path(__file__).with_name("written")
NAMES = {
    "f1": ("wwn-0x6001405284f134a6ab14e189ba6ebd22", "284f134a-6ab1-4e18-9ba6-ebd226e968b8", "f1"),
    "r1": ("wwn-0x6001405379412fd57534fad84e45e438", "379412fd-5753-4fad-84e4-5e43893a4301", "r1"),
    "q1": ("wwn-0x600140514511ed2bc304ffa84dd39fea", "14511ed2-bc30-4ffa-84dd-39feaf70cc8f", "TCMU device"),
}
"""Name, serial number and product that Linux has shown for each storage object of loopback.json."""


def converted(name: str) -> Conversion:
    value: Any = json.loads((WRITTEN / name).read_text())
    return convert(value, "/secrets")


def document(found: Conversion) -> Document:
    return read(found.document, Path("/"))


def test_disks_of_loopback_targets_keep_their_names() -> None:
    luns: dict[str, Lun] = {lun.backstore: lun for lun in document(converted("loopback.json")).hbas[0].luns}
    for name, (by_id, serial, product) in NAMES.items():
        lun = luns[name]
        assert f"wwn-0x{(lun.wwn or '').removeprefix('naa.')}" == by_id
        assert (lun.serial, lun.vendor, lun.product, lun.max_sectors) == (serial, "LIO-ORG", product, None)


def test_only_real_differences_are_said() -> None:
    notes = [note.partition(": ")[2] for note in converted("loopback.json").notes]
    assert notes == [
        "a RAM disk begins empty",
        "write_back is off: the disk of vscsihba has a write cache, which initiators flush",
        "no target shows it",
    ]


def test_the_storage_of_each_object_is_named() -> None:
    stacks = document(converted("loopback.json")).backstores
    assert {name: (stack["handler"], stack.get("path")) for name, stack in stacks.items()} == {
        "f1": ("file", "/run/scratch/f1.img"),
        "f2": ("file", "/run/scratch/f2.img"),
        "q1": ("qemu", "/run/scratch/c.qcow2"),
        "r1": ("memory", None),
    }
    assert warnings(document(converted("loopback.json"))) == ["$.backstores.f2: this backstore has no LUN"]
