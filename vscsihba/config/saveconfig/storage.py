"""Storage objects of LIO as backstores: the handler of each, and the identity that its disk had.

Identities are those of target_core_spc.c and of tcmu-runner's handlers: the unit serial number is the ``wwn``
of the file, and the NAA designator is 6, LIO's company id 001405 and the first 25 hexadecimal digits of that
number.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from vscsihba.config.saveconfig.source import Entry

_OUI: Final = "001405"
_VENDOR: Final = "LIO-ORG"

_PRODUCTS: Final = {"fileio": "FILEIO", "block": "IBLOCK", "ramdisk": "RAMDISK-MCP", "user": "TCMU device"}
"""INQUIRY product of a plugin, unless ``emulate_model_alias`` makes it the name."""

_BLOCK_SIZE: Final = 512
_MAX_SECTORS: Final = 128
"""Default of the kernel for a TCMU device, which nobody has chosen."""
_OF_THE_RING: Final = frozenset({"max_data_area_mb", "data_pages_per_blk", "hw_max_sectors"})

_DEFAULTS: Final = {
    "emulate_3pc": 1,
    "emulate_caw": 1,
    "emulate_dpo": 1,
    "emulate_fua_read": 1,
    "emulate_fua_write": 1,
    "emulate_pr": 1,
    "emulate_rest_reord": 0,
    "emulate_rsoc": 1,
    "emulate_tas": 1,
    "emulate_ua_intlck_ctrl": 0,
    "enforce_pr_isids": 1,
    "force_pr_aptpl": 0,
    "pi_prot_type": 0,
}
"""Attributes that initiators can notice, and their values in the kernel (target_core_configfs.c)."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage object with a counterpart.

    Attributes:
        backstore: Name of the backstore in the document.
        stack: Its layers.
        identity: Keys of its LUN that keep the names of the disk.
        size: Bytes that LIO shows, 0 if they are those of the file or device.
        notes: Differences, a line each.
    """

    backstore: str
    stack: dict[str, Any]
    identity: dict[str, object]
    size: int = 0
    notes: list[str] = field(default_factory=list)


class NoCounterpartError(Exception):
    """An entry that cannot be imported; the message is the reason."""


def storage_of(entry: Entry, taken: set[str]) -> Storage:
    """Return the counterpart of a storage object.

    Args:
        entry: The storage object.
        taken: Names of backstores that are in use.

    Raises:
        NoCounterpartError: There is none.
        ConfigError: The entry is not one of LIO's.
    """
    plugin = entry.text("plugin")
    if plugin not in _STACKS:
        raise NoCounterpartError(f"storage of the kind {plugin!r} has no counterpart")
    notes: list[str] = []
    stack = _STACKS[plugin](entry, notes)
    attributes = entry.entry("attributes")
    if plugin != "pscsi":
        stack |= _block_size(stack, attributes)
        notes += _attribute_notes(attributes)
    notes += _alua_notes(entry)
    size = entry.number("size", 0) if plugin in {"fileio", "user"} else 0
    identity = {} if plugin == "pscsi" else _identity(entry, plugin, attributes)
    return Storage(_name(entry.text("name"), plugin, taken), stack, identity, size, notes)


def _file(entry: Entry, notes: list[str]) -> dict[str, Any]:
    if not entry.flag("write_back", default=True):
        notes.append("write_back is off: the disk of vscsihba has a write cache, which initiators flush")
    return {"handler": "file", "path": entry.text("dev")}


def _block(entry: Entry, _notes: list[str]) -> dict[str, Any]:
    stack: dict[str, Any] = {"handler": "file", "path": entry.text("dev")}
    return stack | ({"read_only": True} if entry.flag("readonly") else {})


def _ramdisk(entry: Entry, notes: list[str]) -> dict[str, Any]:
    if entry.flag("nullio"):
        return {"handler": "null", "size": entry.number("size"), "label": entry.text("name")}
    notes.append("a RAM disk begins empty")
    return {"handler": "memory", "size": entry.number("size"), "label": entry.text("name")}


def _pass_through(entry: Entry, notes: list[str]) -> dict[str, Any]:
    device = entry.text("dev")
    if not re.fullmatch(r"/dev/sg\d+", device):
        raise NoCounterpartError(
            f"the handler sg needs a device /dev/sgN instead of {device}; find it with lsscsi -g"
        )
    notes.append("the disk keeps the identity of the device itself")
    return {"handler": "sg", "path": device}


def _user(entry: Entry, notes: list[str]) -> dict[str, Any]:
    kind, _, config = entry.text("config").partition("/")
    match kind:
        case "file":
            stack: dict[str, Any] = {"handler": "file", "path": config}
        case "qcow":
            stack = {"handler": "qemu", "path": config}
        case "rbd":
            stack = _rbd(config, notes)
        case "vscsihba":
            raise NoCounterpartError("it is a disk of vscsihba")
        case _:
            raise NoCounterpartError(f"tcmu-runner's handler {kind!r} has no counterpart")
    return stack | _control(entry, notes)


def _control(entry: Entry, notes: list[str]) -> dict[str, Any]:
    """Return the options for the settings of a TCMU device; those of its ring are the engine's business."""
    options: dict[str, Any] = {}
    for setting in filter(None, entry.text("control", "").split(",")):
        key, _, value = setting.partition("=")
        if key == "hw_block_size" and value.isdecimal():
            options |= {} if int(value) == _BLOCK_SIZE else {"block_size": int(value)}
        elif key not in _OF_THE_RING:
            notes.append(f"the setting {setting!r} is left out")
    return options


def _rbd(config: str, notes: list[str]) -> dict[str, Any]:
    """Return the layer for ``POOL/IMAGE[;KEY=VALUE...]``."""
    place, *options = config.split(";")
    pool, _, image = place.partition("/")
    namespace, slash, name = image.partition("/")
    stack: dict[str, Any] = {"handler": "rbd", "pool": pool, "image": name if slash else image}
    if slash:
        stack["namespace"] = namespace
    for option in options:
        key, _, value = option.partition("=")
        if key == "conf":
            stack["conf"] = value
        elif key == "id":
            stack["user"] = value
        elif key == "osd_op_timeout" and value.isdecimal() and int(value) > 0:
            stack["timeout"] = int(value)
        elif option:
            notes.append(f"the option {option!r} of rbd is left out")
    return stack


_STACKS: Final[dict[str, Callable[[Entry, list[str]], dict[str, Any]]]] = {
    "fileio": _file,
    "block": _block,
    "ramdisk": _ramdisk,
    "pscsi": _pass_through,
    "user": _user,
}


def _block_size(stack: dict[str, Any], attributes: Entry) -> dict[str, object]:
    """Return the option for logical blocks of another size; a block device has its own."""
    size = attributes.number("block_size", _BLOCK_SIZE)
    if size == _BLOCK_SIZE or str(stack.get("path", "")).startswith("/dev/"):
        return {}
    return {"block_size": size}


def _attribute_notes(attributes: Entry) -> list[str]:
    return [
        f"attribute {name}={attributes.number(name)} is left out"
        for name, default in _DEFAULTS.items()
        if attributes.has(name) and attributes.number(name) != default
    ]


def _alua_notes(entry: Entry) -> list[str]:
    groups = [group.text("name") for group in entry.entries("alua_tpgs")]
    return [f"ALUA group {name!r} is left out" for name in groups if name != "default_tg_pt_gp"]


def _identity(entry: Entry, plugin: str, attributes: Entry) -> dict[str, object]:
    """Return the keys of a LUN with the names that the disk had; none if it had no serial number."""
    if not entry.has("wwn"):
        return {}
    serial = entry.text("wwn")
    digits = re.sub("[^0-9a-f]", "", serial.lower())[:25]
    by_name = plugin != "user" and attributes.flag("emulate_model_alias")
    product = entry.text("name") if by_name else _PRODUCTS[plugin]
    identity: dict[str, object] = {"serial": serial, "wwn": f"naa.6{_OUI}{digits:0<25}"}
    identity |= {"vendor": _VENDOR, "product": product[:16].strip()}
    sectors = entry.number("hw_max_sectors", _MAX_SECTORS)
    if plugin == "user" and sectors != _MAX_SECTORS and 8 <= sectors < 2048 and sectors % 8 == 0:
        identity["max_sectors"] = sectors
    return identity


def _name(name: str, plugin: str, taken: set[str]) -> str:
    """Return a name for a backstore that no other one has."""
    wanted = re.sub("[^A-Za-z0-9._-]", "-", name)[:64]
    wanted = wanted if wanted[:1].isalnum() else f"d{wanted}"[:64]
    if wanted in taken:
        wanted = f"{wanted[:56]}-{plugin}"
    number, free = 2, wanted
    while free in taken:
        free, number = f"{wanted[:60]}-{number}", number + 1
    return free
