"""An iSCSI initiator under test: open-iscsi on this machine, with its daemon and its records apart."""

import os
import subprocess
from pathlib import Path
from typing import Final, Self

from tests.polling import wait_until
from tests.vm.shell import run

_DISKS: Final = Path("/dev/disk/by-path")
_LIMIT: Final = 120


class Initiator:
    """open-iscsi, as long as the context is entered; it has logged out of everything afterwards.

    Args:
        name: Its iSCSI name.
        folder: For its log.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._log = folder / "iscsid.err"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        run("modprobe", "iscsi_tcp")
        run("ip", "link", "set", "lo", "up")
        Path("/etc/iscsi").mkdir(exist_ok=True)
        Path("/run/lock/iscsi").mkdir(parents=True, exist_ok=True)
        Path("/etc/iscsi/initiatorname.iscsi").write_text(f"InitiatorName={self.name}\n")
        with self._log.open("wb") as log:
            # A session of its own, for it ends its whole process group.
            self._process = subprocess.Popen(
                ["iscsid", "-f"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(self._answers, "an iscsid that answers", limit=_LIMIT)
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None
        run("iscsiadm", "-m", "node", "--logoutall=all", check=False)
        run("iscsiadm", "-m", "node", "-o", "delete", check=False)
        self._process.terminate()
        try:
            self._process.wait(_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        print(self._log.read_text(errors="replace"))

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text(errors="replace")
        done = subprocess.run(["iscsiadm", "-m", "session"], capture_output=True, text=True, check=False)
        return "No active sessions" in done.stderr or done.returncode == 0

    def record(self, target: str, portal: str, **settings: str) -> None:
        """Record a target; settings are those of iscsid.conf(5), with ``__`` for a dot."""
        run("iscsiadm", "-m", "node", "-T", target, "-p", portal, "-o", "new")
        for key, value in settings.items():
            self._update(target, portal, key.replace("__", "."), value)

    def _update(self, target: str, portal: str, key: str, value: str) -> None:
        run("iscsiadm", "-m", "node", "-T", target, "-p", portal, "-o", "update", "-n", key, "-v", value)

    def authenticate(
        self, target: str, portal: str, user: str, password: str, mutual: tuple[str, str] | None = None
    ) -> None:
        """Let the record of a target use CHAP."""
        self._update(target, portal, "node.session.auth.authmethod", "CHAP")
        self._update(target, portal, "node.session.auth.username", user)
        self._update(target, portal, "node.session.auth.password", password)
        if mutual is not None:
            self._update(target, portal, "node.session.auth.username_in", mutual[0])
            self._update(target, portal, "node.session.auth.password_in", mutual[1])

    def login(self, target: str, portal: str, *, check: bool = True) -> str:
        """Log in to a recorded target and return the output of iscsiadm(8)."""
        return run("iscsiadm", "-m", "node", "-T", target, "-p", portal, "--login", check=check)

    def login_as(self, name: str, target: str, portal: str) -> Path:
        """Log in once more, under another iSCSI name, and return the node of the new session's LUN 0."""
        before = {*Path("/sys/class/iscsi_session").iterdir()}
        for words in (["new"], ["update", "-n", "iface.initiatorname", "-v", name]):
            run("iscsiadm", "-m", "iface", "-I", "other", "-o", *words)
        at = ("iscsiadm", "-m", "node", "-T", target, "-p", portal, "-I", "other")
        run(*at, "-o", "new")
        run(*at, "--login")
        (session,) = {*Path("/sys/class/iscsi_session").iterdir()} - before

        def disks() -> list[Path]:
            return [*(session / "device").glob("target*/*:0/block/sd*")]

        wait_until(disks, f"a disk of {session}", limit=_LIMIT)
        node = Path("/dev") / disks()[0].name
        wait_until(node.exists, str(node), limit=_LIMIT)
        return node

    def logout(self, target: str, portal: str) -> None:
        """Log out."""
        run("iscsiadm", "-m", "node", "-T", target, "-p", portal, "--logout")

    def rescan(self) -> None:
        """Read the sizes and LUNs of all sessions again."""
        run("iscsiadm", "-m", "session", "--rescan")

    @staticmethod
    def disk(target: str, portal: str, lun: int) -> Path:
        """Return the node of a LUN as soon as Linux has one."""
        link = _DISKS / f"ip-{portal}-iscsi-{target}-lun-{lun}"
        wait_until(link.exists, f"{link}", limit=_LIMIT)
        return Path(os.path.realpath(link))
