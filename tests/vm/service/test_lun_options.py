"""Options of a LUN as initiators and Linux see them: by sg3_utils, /sys, configfs and udev."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.polling import wait_until
from tests.vm.shell import run, settle
from tests.vm.target import CONFIGFS
from vscsihba.control import call

NAA6 = "naa.6001405aabbccdd00112233445566778"
NAA5 = "naa.5001405000000abc"
WRITE_10 = ("2a", "00", "00", "00", "00", "00", "00", "00", "01", "00")
"""One block at LBA 0."""

DOCUMENT = """\
// Everything that can be said of a LUN, and a LUN of which nothing is said.
{
  "version": 1,
  "backstores": {
    "said": {"handler": "file", "path": "said.img", "size": "64MiB"},
    "large-blocks": {"handler": "file", "path": "large.img", "size": "64MiB", "block_size": 4096},
    "plain": {"handler": "file", "path": "plain.img", "size": "64MiB"}
  },
  "hbas": [
    {"id": 3, "luns": [
      {"lun": 0, "backstore": "plain"},
      {"lun": 5, "backstore": "said", "removable": true, "serial": "SN-0001 x",
       "wwn": "naa.6001405aabbccdd00112233445566778", "vendor": "ACME", "product": "Road Runner",
       "queue_depth": 8, "max_sectors": 64, "command_timeout": 90, "queue_full_timeout": 7},
      {"lun": 6, "backstore": "large-blocks", "read_only": true, "wwn": "naa.5001405000000abc",
       "max_sectors": 128}
    ]}
  ]
}
"""


@dataclass(frozen=True)
class Served:
    """A LUN of the document that is there."""

    number: int
    node: Path

    @property
    def block(self) -> Path:
        return Path("/sys/block") / self.node.name

    def sysfs(self, name: str) -> str:
        """Return an attribute of the disk, or of its SCSI device."""
        return (self.block / name).read_text().strip()

    @property
    def sg(self) -> Path:
        """The SCSI generic device: a disk that is write protected cannot be opened for writing."""
        (device,) = (self.block / "device/scsi_generic").iterdir()
        return Path("/dev") / device.name

    def configfs(self, name: str) -> str:
        """Return an attribute of the backstore."""
        (directory,) = (CONFIGFS / "core").glob(f"user_*/vscsihba3-lun{self.number}")
        return (directory / name).read_text().strip()


@contextmanager
def serve(document: Path) -> Iterator[dict[int, Served]]:
    """Serve a document in a process of its own while the context is entered."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.vm.documented", document],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout is not None
        disks = json.loads(server.stdout.readline())
        yield {lun: Served(lun, Path(node)) for _, lun, node in disks}
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait(300) == 0


def written(scratch: Path) -> Path:
    path = scratch / "disks.json"
    path.write_text(DOCUMENT)
    return path


def names(disk: Served) -> str:
    return run("sg_inq", "--id", disk.node)


def test_everything_that_is_said_is_seen(scratch: Path) -> None:
    with serve(written(scratch)) as luns:
        plain, said, large = luns[0], luns[5], luns[6]
        check_names(said, plain)
        check_limits(said, large, plain)
        check_protection(said, large, plain)
        check_tuning(said, plain)
        check_links(said, large)
        before = names(plain), names(said), names(large)
        check_another_tuning(said)
    with serve(written(scratch)) as luns:
        assert (names(luns[0]), names(luns[5]), names(luns[6])) == before


def check_names(said: Served, plain: Served) -> None:
    inquiry = run("sg_inq", said.node)
    assert "Vendor identification: ACME" in inquiry
    assert "Product identification: Road Runner" in inquiry
    assert "Unit serial number: SN-0001 x" in inquiry
    assert (said.sysfs("device/vendor"), said.sysfs("device/model")) == ("ACME", "Road Runner")
    assert NAA6.removeprefix("naa.") in names(said)
    assert said.sysfs("device/wwid").rstrip("\0").lower() == NAA6  # of the SCSI name string, NULs and all
    assert said.configfs("wwn/vpd_unit_serial").endswith("SN-0001 x")
    assert plain.sysfs("device/vendor") == "VSCSIHBA"
    assert "0x3" in names(plain)  # locally assigned: Linux itself likes the T10 name better
    assert plain.sysfs("device/wwid").startswith("t10.VSCSIHBA")


def check_limits(said: Served, large: Served, plain: Served) -> None:
    assert "Maximum transfer length: 64 blocks" in run("sg_vpd", "--page=bl", said.node)
    assert "Maximum transfer length: 16 blocks" in run("sg_vpd", "--page=bl", large.node)
    assert (said.configfs("attrib/hw_max_sectors"), large.configfs("attrib/hw_max_sectors")) == ("64", "16")
    assert said.sysfs("queue/max_sectors_kb") == "32"
    assert large.sysfs("queue/max_sectors_kb") == "64"
    assert int(plain.sysfs("queue/max_sectors_kb")) > 64
    for disk in (said, large):
        run("dd", f"if={disk.node}", "of=/dev/null", "bs=1M", "count=4", "iflag=direct")


def check_protection(said: Served, large: Served, plain: Served) -> None:
    assert [disk.sysfs("ro") for disk in (said, large, plain)] == ["0", "1", "0"]
    assert [disk.sysfs("removable") for disk in (said, large, plain)] == ["1", "0", "0"]
    answer = run(
        "sg_raw",
        "--send=4096",
        large.sg,
        *WRITE_10,
        data=bytes(4096),
        check=False,
    )
    assert "Write protected" in answer
    run("dd", "if=/dev/zero", f"of={said.node}", "bs=1M", "count=4", "oflag=direct")


def check_tuning(said: Served, plain: Served) -> None:
    assert said.sysfs("device/queue_depth") == "8"
    assert said.sysfs("device/timeout") == "90"
    assert said.configfs("attrib/qfull_time_out") == "7"
    assert int(plain.sysfs("device/queue_depth")) > 8
    assert plain.sysfs("device/timeout") == "30"
    assert plain.configfs("attrib/qfull_time_out") == "-1"


def check_links(said: Served, large: Served) -> None:
    settle()
    for disk, wwn in ((said, NAA6), (large, NAA5)):
        link = Path(f"/dev/disk/by-id/wwn-0x{wwn.removeprefix('naa.')}")
        wait_until(link.exists, f"the link {link}")
        assert link.resolve() == disk.node


def check_another_tuning(said: Served) -> None:
    """Change the options that can be changed while a disk works, there and back."""
    (socket,) = Path("/run/vscsihba/hba3").glob("engine-*.control")
    call(socket, "tune_lun", {"lun": 5, "tuning": {"queue_depth": 4, "command_timeout": 45}}, timeout=60)
    assert (said.sysfs("device/queue_depth"), said.sysfs("device/timeout")) == ("4", "45")
    assert said.configfs("attrib/qfull_time_out") == "-1"
    call(socket, "tune_lun", {"lun": 5, "tuning": {}}, timeout=60)
    assert int(said.sysfs("device/queue_depth")) > 8
    assert said.sysfs("device/timeout") == "30"
