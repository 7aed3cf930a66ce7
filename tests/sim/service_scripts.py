"""Requests to a service, for the lane of `service`: documents that it applies, saves and restores."""

from dataclasses import dataclass
from typing import Any, Final

Words = dict[str, Any]
"""A document as JSON."""


@dataclass(frozen=True)
class Script:
    """Requests to a service, from the start of a machine on.

    Attributes:
        name: On the command line.
        saved: The saved document, None if there is none.
        restored: The part of it that is valid; None for all of it.
        unread: HBA and LUN of the entry that is not.
        requests: ``apply`` with a document, ``save``, ``clear`` with an HBA, ``resize`` with backstore and
            bytes.
        cut_off: The service is killed at this part of the calls that its requests make, from 0 to 1, and the
            faults strike the next service while it starts; None if they strike the first one, from its start.
    """

    name: str
    saved: Words | None
    requests: tuple[tuple[str, Any], ...] = ()
    cut_off: float | None = None
    restored: Words | None = None
    unread: tuple[int, int] | None = None


def memory(size: str = "1MiB", **options: object) -> dict[str, object]:
    return {"handler": "memory", "size": size, **options}


BEFORE: dict[str, Any] = {
    "version": 1,
    "backstores": {"a": memory(), "b": memory(label="b"), "c": memory(label="c"), "d": memory(label="d")},
    "hbas": [
        {
            "id": 0,
            "engines": 2,
            "luns": [
                {"lun": 0, "backstore": "a"},
                {"lun": 1, "backstore": "b"},
                {"lun": 2, "backstore": "c"},
            ],
        },
        {"id": 1, "luns": [{"lun": 0, "backstore": "d"}]},
    ],
}

AFTER: dict[str, Any] = {
    "version": 1,
    "backstores": {
        "a": memory("2MiB"),
        "b": memory(label="another"),
        "c": memory(label="c"),
        "e": memory(label="e"),
        "f": memory(label="f"),
    },
    "hbas": [
        {
            "id": 0,
            "engines": 1,
            "luns": [
                {"lun": 0, "backstore": "a", "queue_depth": 8},
                {"lun": 1, "backstore": "b"},
                {"lun": 3, "backstore": "c", "serial": "S"},
                {"lun": 4, "backstore": "e"},
            ],
        },
        {"id": 7, "engines": 2, "luns": [{"lun": 0, "backstore": "f"}]},
    ],
}
"""Grows, tunes, replaces, moves, adds and removes LUNs; adds and removes HBAs, and engines."""


def _mistyped() -> Words:
    """Return `BEFORE` with an entry that is not valid."""
    return {**BEFORE, "backstores": {**BEFORE["backstores"], "b": memory(siez=1)}}


def _without_the_mistyped() -> Words:
    hba = BEFORE["hbas"][0]
    luns = [lun for lun in hba["luns"] if lun["backstore"] != "b"]
    stacks = {name: stack for name, stack in BEFORE["backstores"].items() if name != "b"}
    return {**BEFORE, "backstores": stacks, "hbas": [{**hba, "luns": luns}, *BEFORE["hbas"][1:]]}


def _small(label: str) -> Words:
    hba = {"id": 0, "luns": [{"lun": 0, "backstore": label}]}
    return {"version": 1, "backstores": {label: memory(label=label)}, "hbas": [hba]}


def _exporting(names: str, exports: list[Words]) -> Words:
    """Return a document of these disks, with exports."""
    luns = [{"lun": number, "backstore": name} for number, name in enumerate(names)]
    stacks = {name: memory(label=name) for name in names}
    return {"version": 1, "backstores": stacks, "hbas": [{"id": 0, "luns": luns}], "exports": exports}


def _export(name: str, port: int, hosts: int, luns: dict[int, str]) -> Words:
    return {
        "transport": "iscsi",
        "name": f"iqn.2026-11.example:{name}",
        "portals": [f"127.0.0.1:{port}"],
        "initiators": [{"name": f"iqn.2026-11.example:host{number}"} for number in range(hosts)],
        "luns": [{"lun": number, "backstore": backstore} for number, backstore in luns.items()],
    }


_ONE_EXPORT: Final = _exporting("ab", [_export("x", 3260, 1, {0: "a", 1: "b"})])
_TWO_EXPORTS: Final = _exporting(
    "ac", [_export("x", 3261, 2, {0: "c", 7: "a"}), _export("y", 3262, 1, {0: "a"})]
)
"""Moves, adds and removes LUNs, portals and initiators; adds an export, and removes a disk of another one."""

_CHANGE: Final = (("apply", AFTER), ("save", None))

SCRIPTS: Final = {
    script.name: script
    for script in (
        Script("service-first", None, (("apply", _small("x")), ("save", None), ("apply", _small("y")))),
        Script("service-change", BEFORE, _CHANGE),
        Script("service-clear", AFTER, (("resize", ("a", 3 << 20)), ("clear", 7), ("save", None))),
        Script("service-mistyped", _mistyped(), restored=_without_the_mistyped(), unread=(0, 1)),
        Script("service-mistyped-again", _mistyped(), (), 1.0, _without_the_mistyped(), (0, 1)),
        Script(
            "service-exports", _ONE_EXPORT, (("apply", _TWO_EXPORTS), ("save", None), ("apply", _ONE_EXPORT))
        ),
        Script("service-exports-cut", _ONE_EXPORT, (("apply", _TWO_EXPORTS),), cut_off=5 / 8),
        *(Script(f"service-cut-{part}", BEFORE, _CHANGE[:1], cut_off=part / 8) for part in (1, 3, 5, 7, 8)),
    )
}
