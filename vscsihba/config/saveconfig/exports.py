"""iSCSI targets of LIO as exports, which admit no initiator, and no write, that the target refused."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from vscsihba.config.export import Initiator
from vscsihba.config.saveconfig.source import Entry
from vscsihba.config.saveconfig.storage import NoCounterpartError

_TEXT: Final = {"HeaderDigest": "header_digest", "DataDigest": "data_digest"}
_DEPTH: Final = 64
"""Default of the kernel for default_cmdsn_depth."""
_SHORTEST_SECRET: Final = 12


@dataclass(slots=True)
class Secrets:
    """CHAP secrets by the names of the files that they belong into.

    Attributes:
        folder: Folder of these files.
        files: Content of each.
    """

    folder: str
    files: dict[str, str] = field(default_factory=dict)

    def keep(self, name: str, secret: str) -> str:
        """Take a secret and return the path of its file.

        Raises:
            NoCounterpartError: It is shorter than vscsihba accepts.
        """
        if not _SHORTEST_SECRET <= len(secret.encode()) <= 255 or "\n" in secret:
            raise NoCounterpartError(
                f"its CHAP secret has not {_SHORTEST_SECRET} to 255 bytes; choose another one on both sides"
            )
        file = re.sub("[^A-Za-z0-9.-]", "_", name) + ".chap"
        self.files[file] = secret + "\n"
        return f"{self.folder}/{file}"


def export_of(
    target: Entry, group: Entry, backstores: dict[str, str], secrets: Secrets, notes: list[str]
) -> Any:
    """Return the export for a portal group of a target.

    Args:
        target: The target.
        group: Its portal group.
        backstores: Name of the backstore for each storage object, such as ``/backstores/fileio/f1``.
        secrets: Takes the CHAP secrets.
        notes: Takes the differences.

    Raises:
        NoCounterpartError: There is none.
        ConfigError: An entry is not one of LIO's.
    """
    if not group.flag("enable"):
        raise NoCounterpartError("the portal group is not enabled")
    attributes = group.entry("attributes")
    opened = attributes.flag("generate_node_acls")
    with_chap = attributes.flag("authentication")
    if opened and with_chap:
        raise NoCounterpartError("an export that is open to all initiators cannot ask for a CHAP secret")
    luns = _luns(group, backstores, notes)
    export: dict[str, Any] = {
        "transport": "iscsi",
        "name": target.text("wwn"),
        "portals": _portals(group, notes),
    }
    if opened:
        export["open"] = True
        writable = not attributes.flag("demo_mode_write_protect", default=True)
        luns = [lun | {"read_only": not writable} for lun in luns]
    protected = _protected(group)
    for lun in luns:
        if lun["lun"] in protected and not lun.get("read_only"):
            lun["read_only"] = True
            notes.append(f"LUN {lun['lun']} refuses writes of all initiators: the file protects it from some")
    initiators = [] if opened else _initiators(target, group, {lun["lun"] for lun in luns}, secrets, notes)
    if opened and list(group.entries("node_acls")):
        notes.append("the list of initiators is left out: the target admits every initiator")
    if initiators:
        export["initiators"] = initiators
    return export | {"luns": luns} | _settings(group, attributes)


def _luns(group: Entry, backstores: dict[str, str], notes: list[str]) -> list[dict[str, Any]]:
    luns = []
    for lun in group.entries("luns"):
        number, storage = lun.number("index"), lun.text("storage_object")
        if storage in backstores:
            luns.append({"lun": number, "backstore": backstores[storage]})
        else:
            notes.append(f"LUN {number} is left out: {storage} has no counterpart")
    return luns


def _portals(group: Entry, notes: list[str]) -> list[str]:
    portals = []
    for portal in group.entries("portals"):
        address = portal.text("ip_address").strip("[]")
        text = (
            f"[{address}]:{portal.number('port')}" if ":" in address else f"{address}:{portal.number('port')}"
        )
        if portal.flag("iser") or portal.flag("offload"):
            notes.append(f"the portal {text} is left out: it uses iSER or an offload")
        else:
            portals.append(text)
    if not portals:
        raise NoCounterpartError("no portal is left")
    return portals


def _protected(group: Entry) -> set[int]:
    """Return the numbers of LUNs that some initiator may not write to."""
    return {
        lun.number("tpg_lun")
        for initiator in group.entries("node_acls")
        for lun in initiator.entries("mapped_luns")
        if lun.flag("write_protect")
    }


def _initiators(
    target: Entry, group: Entry, numbers: set[int], secrets: Secrets, notes: list[str]
) -> list[dict[str, Any]]:
    made, with_chap = [], group.entry("attributes").flag("authentication")
    for initiator in group.entries("node_acls"):
        name = initiator.text("node_wwn")
        try:
            found = _initiator(target.text("wwn"), initiator, numbers, secrets, with_chap=with_chap)
            msgspec.convert(found, Initiator)
            made.append(found)
        except msgspec.ValidationError as error:
            notes.append(f"initiator {name} is left out: a document cannot have this: {error}")
        except NoCounterpartError as error:
            notes.append(f"initiator {name} is left out: {error}")
        if not with_chap and initiator.has("chap_userid"):
            notes.append(
                f"the secret of initiator {name} is left out: the target asks for none (authentication=0)"
            )
    return made


def _initiator(
    target: str, entry: Entry, numbers: set[int], secrets: Secrets, *, with_chap: bool
) -> dict[str, Any]:
    name = entry.text("node_wwn")
    mapped = [(lun.number("index"), lun.number("tpg_lun")) for lun in entry.entries("mapped_luns")]
    if other := [pair for pair in mapped if pair[0] != pair[1]]:
        raise NoCounterpartError(f"it sees LUN {other[0][1]} under another number, {other[0][0]}")
    initiator: dict[str, Any] = {"name": name}
    seen = {number for number, _ in mapped} & numbers
    if seen != numbers:
        initiator["luns"] = sorted(seen)
    if not with_chap:
        return initiator
    if not (entry.has("chap_userid") and entry.has("chap_password")):
        raise NoCounterpartError("the target asks for a CHAP secret, and it has none")
    initiator["user"] = entry.text("chap_userid")
    initiator["password_file"] = secrets.keep(f"{target}-{name}", entry.text("chap_password"))
    if entry.has("chap_mutual_userid") and entry.has("chap_mutual_password"):
        initiator["mutual_user"] = entry.text("chap_mutual_userid")
        mutual = secrets.keep(f"{target}-{name}-mutual", entry.text("chap_mutual_password"))
        initiator["mutual_password_file"] = mutual
    return initiator


def _settings(group: Entry, attributes: Entry) -> dict[str, object]:
    """Return settings of the target that differ from the kernel's."""
    found: dict[str, object] = {}
    if (depth := attributes.number("default_cmdsn_depth", _DEPTH)) != _DEPTH:
        found["cmdsn_depth"] = depth
    parameters = group.entry("parameters")
    for name, key in _TEXT.items():
        digests = parameters.text(name, "CRC32C,None").replace(" ", "")
        if digests != "CRC32C,None":
            found[key] = digests
    return found
