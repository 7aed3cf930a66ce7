"""A configfs, a /sys and a /dev in a temporary folder, with the kernel's side effects.

Making a directory fills it, enabling a backstore makes its uio device, linking a LUN makes
its SCSI device, and a directory that something leads to cannot be removed (EBUSY).
"""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from rtslib_fb import node, target, tcm

from vscsihba.configfs import devices, observer, paths
from vscsihba.configfs.names import wwn_of

ATTRIBUTES = {
    "alua_support": "1",
    "cmd_ring_size_mb": "8",
    "cmd_time_out": "30",
    "data_pages_per_blk": "1",
    "dev_config": "",
    "dev_size": "0",
    "hw_block_size": "0",
    "hw_max_sectors": "128",
    "max_data_area_mb": "1024",
    "nl_reply_supported": "0",
    "qfull_time_out": "-1",
    "tmr_notification": "0",
}

ISCSI_ATTRIBUTES = {
    "authentication": "1",
    "cache_dynamic_acls": "0",
    "default_cmdsn_depth": "64",
    "demo_mode_discovery": "1",
    "demo_mode_write_protect": "1",
    "generate_node_acls": "0",
    "prod_mode_write_protect": "0",
}


class FakeConfigfs:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.configfs, self.sysfs, self.dev = root / "config", root / "sys", root / "dev"
        self.core, self.loopback = self.configfs / "target/core", self.configfs / "target/loopback"
        self.iscsi = self.configfs / "target/iscsi"
        self.proc = root / "proc"
        self.answered = True
        self.refused: str | None = None
        self._hosts = 5
        self._mkdir, self._rmdir, self._symlink = Path.mkdir, Path.rmdir, os.symlink
        for folder in (self.core, self.loopback, self.dev, self.proc, self.sysfs / "class/uio"):
            folder.mkdir(parents=True)
        (self.configfs / "target/dbroot").write_text(f"{root}\n")
        for name in ("CONFIGFS", "SYSFS", "DEV", "PROC"):
            monkeypatch.setattr(paths, name, getattr(self, name.lower()))
        monkeypatch.setattr(node.CFSNode, "configfs_dir", str(self.configfs / "target"))
        monkeypatch.setattr(Path, "mkdir", self._make())
        monkeypatch.setattr(Path, "rmdir", self._remove())
        monkeypatch.setattr(os, "symlink", self.link)
        monkeypatch.setattr(tcm, "fwrite", self.write)
        monkeypatch.setattr(target, "fwrite", self.write)
        monkeypatch.setattr(devices, "wait_for_uio", self.uio)

    def uio(self, name: str, index: int, *, timeout: float) -> Path:
        ring = observer.ring_of(name, index)
        assert ring is not None
        return self.dev / ring

    def attribute(self, name: str, attribute: str, index: int = 0) -> str:
        return (self.core / f"user_{index}" / name / "attrib" / attribute).read_text().strip()

    def foreign_backstore(self, name: str = "other", index: int = 7, config: str = "tgt/x") -> Path:
        directory = self.core / f"user_{index}" / name
        directory.mkdir(parents=True)
        (directory / "attrib/dev_config").write_text(f"{config}\n")
        return directory

    def put_behind(self, wwn: str, lun: int, backstore: Path) -> None:
        folder = self.loopback / wwn / "tpgt_1/lun" / f"lun_{lun}"
        folder.mkdir(parents=True)
        self._symlink(backstore, folder / "link")

    def write(self, path: str | Path, value: Any) -> None:
        """Stand for rtslib's fwrite()."""
        path, text = Path(path), str(value).strip()
        if self.iscsi in path.parents and not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        if self.refused is not None and self.refused in str(path):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        if path.name == "control":
            self._control(path.parent, text)
            return
        if path.name == "enable" and self.core in path.parents:
            self._enable(path.parent)
        path.write_text(
            f"T10 VPD Unit Serial Number: {text}\n" if path.name == "vpd_unit_serial" else f"{text}\n"
        )

    def link(self, source: str, destination: str, target_is_directory: bool = False) -> None:
        """Stand for os.symlink(): scan the LUN."""
        self._symlink(source, destination, target_is_directory)
        lun = Path(destination).parent
        if not lun.name.startswith("lun_"):
            return
        if self.iscsi in lun.parents:
            return
        group = lun.parent.parent
        members = Path(source) / "alua/default_tg_pt_gp/members"
        members.write_text(f"{members.read_text()}loopback/{group.parent.name}/tpgt_1/{lun.name}\n")
        if not self.answered:
            return
        host, number = (group / "address").read_text().partition(":")[0], int(lun.name[4:])
        device = self.sysfs / f"bus/scsi/devices/{host}:0:1:{number}"
        self._mkdir(device / "block" / f"sd{chr(ord('a') + number)}", parents=True)
        self._mkdir(device / "scsi_generic" / f"sg{number}", parents=True)
        for name, text in (("state", "running"), ("queue_depth", "1024"), ("timeout", "30"), ("rescan", "")):
            (device / name).write_text(f"{text}\n")
        scsi_host = self.sysfs / f"class/scsi_host/host{host}"
        self._mkdir(scsi_host, parents=True, exist_ok=True)
        (scsi_host / "cmd_per_lun").write_text("1024\n")

    def delete_disk(self, hba_id: int, lun: int) -> None:
        """Stand for ``echo 1 > /sys/block/sdX/device/delete``."""
        host = (self.loopback / wwn_of(hba_id) / "tpgt_1/address").read_text().partition(":")[0]
        shutil.rmtree(self.sysfs / f"bus/scsi/devices/{host}:0:1:{lun}")

    def _make(self) -> Any:
        fake = self

        def mkdir(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
            if parents and not path.parent.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
            fake._mkdir(path, mode, exist_ok=exist_ok)
            fake._fill(path)

        return mkdir

    def _fill(self, path: Path) -> None:
        if path.parent.parent == self.core:
            for folder in ("attrib", "wwn", "alua/default_tg_pt_gp", "action", "pr"):
                self._mkdir(path / folder, parents=True)
            for name, value in ATTRIBUTES.items():
                (path / "attrib" / name).write_text(f"{value}\n")
            for name, text in (
                ("enable", "0\n"),
                ("control", ""),
                ("wwn/vpd_unit_serial", "T10 VPD Unit Serial Number: \n"),
                ("alua/default_tg_pt_gp/members", ""),
                ("action/block_dev", "0\n"),
                ("action/reset_ring", ""),
                ("pr/res_aptpl_metadata", ""),
            ):
                (path / name).write_text(text)
        elif path.parent.name == "alua":
            for name in ("alua_access_state", "tg_pt_gp_id"):
                (path / name).write_text("0\n")
        elif path.name == "tpgt_1" and path.parent.parent == self.loopback:
            self._hosts += 1
            (path / "address").write_text(f"{self._hosts}:0:1\n")
            (path / "nexus").write_text("")
            (path / "transport_status").write_text("online\n")
            self._mkdir(path / "lun")
            self._mkdir(path.parent / "param")
            (path.parent / "param/cmd_completion_affinity").write_text("-1\n")

        elif self.iscsi in path.parents:
            self._fill_iscsi(path)

    def _fill_iscsi(self, path: Path) -> None:
        files: dict[str, str] = {}
        if path.name == "tpgt_1":
            for folder in ("acls", "attrib", "lun", "np", "param"):
                self._mkdir(path / folder)
            files = {f"attrib/{name}": value for name, value in ISCSI_ATTRIBUTES.items()}
            files |= {"enable": "0", "dynamic_sessions": "", "param/HeaderDigest": "CRC32C,None"}
            files |= {"param/DataDigest": "CRC32C,None"}
        elif path.parent.name == "acls":
            self._mkdir(path / "auth")
            self._mkdir(path / "attrib")
            files = {
                f"auth/{key}{suffix}": "" for key in ("userid", "password") for suffix in ("", "_mutual")
            }
            files |= {"attrib/nopin_timeout": "15", "attrib/nopin_response_timeout": "30"}
            files["info"] = f"No active iSCSI Session for Initiator Endpoint: {path.name}"
        elif path.parent.parent.name == "acls":
            files = {"write_protect": "0"}
        elif path.parent.name == "np":
            files = {"iser": "0"}
        elif path.parent.name == "lun":
            files = {"alua_tg_pt_gp": "TG Port Alias: default_tg_pt_gp\nTG Port Group ID: 0"}
        for name, text in files.items():
            (path / name).write_text(f"{text}\n")

    def _remove(self) -> Any:
        fake = self

        def rmdir(path: Path) -> None:
            if fake._is_busy(path):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
            if fake.iscsi in path.parents:
                shutil.rmtree(path)
                return
            if path.name.startswith("lun_"):
                fake._unscan(path)
            enabled = path / "enable"
            if enabled.exists() and enabled.read_text() == "1\n":
                ring = observer.ring_of(path.name, int(path.parent.name[5:]))
                shutil.rmtree(fake.sysfs / "class/uio" / str(ring))
            shutil.rmtree(path)

        return rmdir

    def _is_busy(self, path: Path) -> bool:
        if path.parent == self.core:
            return any(entry.is_dir() for entry in path.iterdir())
        if path.parent.parent == self.core:
            return self._is_linked(path)
        if self.iscsi in path.parents:
            return self._is_linked(path) or any(entry.is_symlink() for entry in path.iterdir())
        return path.name == "tpgt_1" and any((path / "lun").iterdir())

    def _is_linked(self, path: Path) -> bool:
        links = [*self.loopback.rglob("*"), *self.iscsi.rglob("*")]
        return any(link.is_symlink() and link.resolve() == path for link in links)

    def _unscan(self, lun: Path) -> None:
        group = lun.parent.parent
        host = (group / "address").read_text().partition(":")[0]
        shutil.rmtree(self.sysfs / f"bus/scsi/devices/{host}:0:1:{lun.name[4:]}", ignore_errors=True)
        line = f"loopback/{group.parent.name}/tpgt_1/{lun.name}\n"
        for members in self.core.glob("*/*/alua/default_tg_pt_gp/members"):
            members.write_text(members.read_text().replace(line, ""))

    def _control(self, directory: Path, text: str) -> None:
        for setting in text.split(","):
            key, _, value = setting.partition("=")
            (directory / "attrib" / key).write_text(f"{value}\n")

    def _enable(self, directory: Path) -> None:
        uio = self.sysfs / "class/uio"
        ring = uio / f"uio{len(list(uio.iterdir()))}"
        self._mkdir(ring)
        config = (directory / "attrib/dev_config").read_text().strip()
        (ring / "name").write_text(f"tcm-user/{directory.parent.name[5:]}/{directory.name}/{config}\n")
