"""The model of an export: a target of another transport that shows backstores to other computers.

Frozen values with the ranges of their fields, as `vscsihba.config.model`; `vscsihba.config.load_exports`
creates them and checks the rules between fields.
"""

from collections.abc import Collection
from typing import Annotated, Literal

import msgspec

from vscsihba.config.annotations import number, text

_IQN = r"iqn\.[0-9]{4}-(0[1-9]|1[0-2])(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+(:[a-z0-9.:_-]+)?"
_SHORT = r"(?=.{1,223}(?!\n)$)"

TargetName = Annotated[
    str,
    text(
        rf"^{_SHORT}{_IQN}(?!\n)$",
        'an iSCSI name in lower case, such as "iqn.2026-11.example:store", up to 223 characters',
        "iSCSI name of the target (RFC 7143, 4.2.7).",
    ),
]
_InitiatorName = Annotated[
    str,
    text(
        rf"^{_SHORT}({_IQN}|eui\.[0-9a-f]{{16}}|naa\.[0-9a-f]{{16}}([0-9a-f]{{16}})?)(?!\n)$",
        'an iSCSI name in lower case, such as "iqn.2026-11.example:host1", up to 223 characters',
        "iSCSI name of the initiator (RFC 7143, 4.2.7).",
    ),
]
_Portal = Annotated[
    str,
    text(
        r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[1-9][0-9]{0,4}(?!\n)$",
        'an address of this machine and a port, such as "192.0.2.7:3260" or "[2001:db8::7]:3260"',
        "Address and TCP port on which the target listens.",
    ),
]
_ChapUser = Annotated[
    str,
    text(
        r"^[!-~]{1,255}(?!\n)$",
        "1 to 255 printable ASCII characters without a blank",
        "Name for CHAP (RFC 1994).",
    ),
]
_SecretFile = Annotated[
    str,
    text(
        r"^[^\0\n]+(?!\n)$",
        "the path of a file",
        "File with the CHAP secret as its first line, 12 to 255 bytes; only its owner may read it.",
    ),
]
AccessState = Literal["active", "standby", "unavailable"]
"""Asymmetric access states of a path (SPC-5) that the kernel tells apart for our backstores."""
_Digest = Literal["None", "CRC32C", "CRC32C,None", "None,CRC32C"]


class ExportLun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One logical unit of an export."""

    lun: Annotated[int, number(0, 16383, "Number of the LUN.")]
    backstore: Annotated[str, msgspec.Meta(description="Name of its backstore.")]
    read_only: Annotated[
        bool | None,
        msgspec.Meta(description="Refuse writes of its initiators; default: true in an open export."),
    ] = None
    state: Annotated[
        AccessState, msgspec.Meta(description="Whether initiators may use the disk over this path (ALUA).")
    ] = "active"


class Initiator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An initiator that may log in, and the LUNs that it sees."""

    name: _InitiatorName
    user: _ChapUser | None = None
    password_file: _SecretFile | None = None
    mutual_user: _ChapUser | None = None
    mutual_password_file: _SecretFile | None = None
    luns: Annotated[
        tuple[int, ...] | None,
        msgspec.Meta(
            description="Numbers of the LUNs that it sees; all of them, if left out.",
            extra={"use": "a list of numbers of LUNs"},
        ),
    ] = None

    @property
    def secret_files(self) -> dict[str, str]:
        """The paths of its secrets, by the key of each."""
        keys = ("password_file", "mutual_password_file")
        return {key: path for key in keys if (path := getattr(self, key)) is not None}

    def seeing(self, luns: Collection[ExportLun]) -> "Initiator":
        """Return it without numbers of LUNs that do not exist."""
        if self.luns is None:
            return self
        existing = {lun.lun for lun in luns}
        return msgspec.structs.replace(self, luns=tuple(number for number in self.luns if number in existing))


class Export(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A target for other computers; LUNs are ordered by number, portals and initiators by name.

    None means the kernel's default.
    """

    transport: Annotated[Literal["iscsi"], msgspec.Meta(description="The transport.")]
    name: TargetName
    portals: Annotated[
        tuple[_Portal, ...], msgspec.Meta(description="Addresses on which the target listens.")
    ] = ()
    initiators: Annotated[
        tuple[Initiator, ...], msgspec.Meta(description="The initiators that may log in.")
    ] = ()
    open: Annotated[bool, msgspec.Meta(description="Let every initiator log in, without a secret.")] = False
    luns: Annotated[tuple[ExportLun, ...], msgspec.Meta(description="Its LUNs.")] = ()
    cmdsn_depth: (
        Annotated[int, number(1, 512, "Commands that an initiator may send at once (default_cmdsn_depth).")]
        | None
    ) = None
    nopin_timeout: (
        Annotated[
            int,
            number(
                3,
                60,
                "Seconds after which an idle connection of a listed initiator is probed (nopin_timeout); "
                "default: 15.",
            ),
        ]
        | None
    ) = None
    nopin_response_timeout: (
        Annotated[
            int,
            number(
                3,
                60,
                "Seconds after which a connection ends that does not answer that (nopin_response_timeout); "
                "default: 30.",
            ),
        ]
        | None
    ) = None
    header_digest: Annotated[
        _Digest | None, msgspec.Meta(description="Digests of headers that may be used (HeaderDigest).")
    ] = None
    data_digest: Annotated[
        _Digest | None, msgspec.Meta(description="Digests of data that may be used (DataDigest).")
    ] = None

    def lun(self, number: int) -> ExportLun | None:
        """Return the LUN of that number, None if it does not exist."""
        return next((lun for lun in self.luns if lun.lun == number), None)

    @property
    def authenticates(self) -> bool:
        """Whether initiators need a secret (CHAP)."""
        return any(initiator.user is not None for initiator in self.initiators)

    def read_only(self, lun: ExportLun) -> bool:
        """Return whether writes to one of its LUNs are refused."""
        return self.open if lun.read_only is None else lun.read_only

    def without(self, luns: Collection[int], initiators: Collection[str] = ()) -> "Export":
        """Return it without LUNs of these numbers, and without initiators of these names."""
        rest = tuple(lun for lun in self.luns if lun.lun not in luns)
        allowed = tuple(each.seeing(rest) for each in self.initiators if each.name not in initiators)
        return msgspec.structs.replace(self, luns=rest, initiators=allowed)


def joined(before: Export | None, after: Export) -> Export:
    """Return an export with its LUNs, initiators and portals, and with those that only `before` has."""
    if before is None:
        return after
    luns = {lun.lun: lun for export in (before, after) for lun in export.luns}
    initiators = {each.name: each for export in (before, after) for each in export.initiators}
    return msgspec.structs.replace(
        after,
        luns=tuple(luns[number] for number in sorted(luns)),
        initiators=tuple(initiators[name] for name in sorted(initiators)),
        portals=tuple(sorted({*before.portals, *after.portals})),
    )
