"""An iSCSI target of the kernel as a value: the one that a document asks for, or the one that exists."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vscsihba.configfs.alua import ACTIVE

DEFAULTS: Final = {
    "attrib/default_cmdsn_depth": "64",
    "param/HeaderDigest": "CRC32C,None",
    "param/DataDigest": "CRC32C,None",
}
"""Settings of a portal group with the kernel's own values (iscsi_target_tpg.h, iscsi_target_parameters.h).

Not login_timeout: the kernel keeps it and waits for its own 15 s (iscsi_target_login.c, TA_LOGIN_TIMEOUT).
"""

WRITE_PROTECT: Final = "attrib/demo_mode_write_protect"
"""The file that says whether initiators of an open target are refused writes."""

ACL_DEFAULTS: Final = {"attrib/nopin_timeout": "15", "attrib/nopin_response_timeout": "30"}
"""Settings of an initiator with the kernel's own values (iscsi_target_nodeattrib.h)."""


@dataclass(frozen=True, slots=True)
class Chap:
    """A name and a secret for CHAP; the secret is never part of a text."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Acl:
    """An initiator that may log in.

    Attributes:
        luns: Number of each LUN that it sees, and whether writes to it are refused.
        chap: The initiator proves this to the target.
        mutual: The target proves this to the initiator.
        settings: Values by file, relative to the initiator's folder, such as ``attrib/nopin_timeout``.
    """

    luns: Mapping[int, bool] = field(default_factory=dict)
    chap: Chap | None = None
    mutual: Chap | None = None
    settings: Mapping[str, str] = field(default_factory=lambda: dict(ACL_DEFAULTS))


@dataclass(frozen=True, slots=True)
class IscsiTarget:
    """A target with one portal group.

    Attributes:
        name: Its iSCSI name.
        portals: ``ADDRESS:PORT`` of each portal; IPv6 addresses in brackets.
        luns: The name of the backstore behind each LUN.
        acls: The initiators that may log in, by iSCSI name.
        open: Every other initiator may log in as well, and sees all LUNs.
        write_protected: Writes of these other initiators are refused.
        settings: Values by file, relative to the portal group, such as ``attrib/default_cmdsn_depth``.
        states: The access state of each LUN that is not active (`vscsihba.configfs.alua`).
    """

    name: str
    portals: frozenset[str] = frozenset()
    luns: Mapping[int, str] = field(default_factory=dict)
    acls: Mapping[str, Acl] = field(default_factory=dict)
    open: bool = False
    write_protected: bool = True
    settings: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULTS))
    states: Mapping[int, str] = field(default_factory=dict)

    def state(self, lun: int) -> str:
        """Return the access state of a LUN."""
        return self.states.get(lun, ACTIVE)

    @property
    def files(self) -> dict[str, str]:
        """All values by file, relative to the portal group (iscsi_target_configfs.c)."""
        return {
            **self.settings,
            "attrib/authentication": str(int(any(acl.chap for acl in self.acls.values()))),
            "attrib/generate_node_acls": str(int(self.open)),
            # Without this, an initiator keeps the access of its first login until the target is gone.
            "attrib/cache_dynamic_acls": "0",
            WRITE_PROTECT: str(int(self.write_protected)),
            # Discovery tells the addresses of a closed target to its own initiators only.
            "attrib/demo_mode_discovery": str(int(self.open)),
            # A LUN is linked before its access is set; until then it must not be writable.
            "attrib/prod_mode_write_protect": "1",
        }


@dataclass(frozen=True, slots=True)
class Refusals:
    """The logins to a target that were refused since it was created.

    Attributes:
        count: Logins of initiators that are not listed, or whose secret is wrong.
        initiator: Name of the last one; empty if the kernel does not tell.
        address: Its IP address; likewise.
    """

    count: int
    initiator: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """An initiator that is logged in.

    Attributes:
        initiator: Its iSCSI name.
        addresses: IP address of each connection; none if the kernel does not tell.
    """

    initiator: str
    addresses: tuple[str, ...] = ()
