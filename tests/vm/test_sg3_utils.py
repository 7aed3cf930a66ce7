"""The tools of sg3_utils, smartmontools and util-linux on our disk: each works, and decodes our answers."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.shell import run
from tests.vm.target import Lun, Target

MiB = 1 << 20
SIZE = 32 * MiB
BLOCKS = SIZE // 512


@pytest.fixture(scope="module")
def luns(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Lun]]:
    """Two disks of one HBA for all tests of this module: each test writes what it reads."""
    base = os.environ.get("VSCSIHBA_SCRATCH")
    folder = Path(base) if base else tmp_path_factory.mktemp("sg3")
    images = [folder / name for name in ("sg3-a.img", "sg3-b.img")]
    for image in images:
        with image.open("wb") as file:
            file.truncate(SIZE)
    target = Target(images, 0, (), folder / "sg3.err")
    try:
        yield target.wait_ready()
    finally:
        ended = target.finish()
        errors = target.errors()
        for path in (*images, folder / "sg3.err"):
            path.unlink()
    assert ended, f"{target} did not end after SIGTERM:\n{errors}"


@pytest.fixture
def sg(luns: list[Lun]) -> Path:
    """The first disk's /dev/sgN."""
    return luns[0].sg


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A file of 4 KiB that is like no other."""
    path = tmp_path / "noise"
    path.write_bytes(os.urandom(4096))
    return path


def told(*words: str | Path) -> str:
    """Run a tool and return its output with each run of blanks and line ends as one blank."""
    return " ".join(run(*words).split())


def write(disk: Lun, lba: int, data: bytes) -> None:
    """Write blocks through the block layer, and past its cache."""
    with disk.node.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), data, lba * 512)
        os.fsync(file.fileno())


def read(disk: Lun, lba: int, blocks: int = 1) -> bytes:
    """Return blocks as the disk has them, not the block layer's cache."""
    run("blockdev", "--flushbufs", disk.node)
    with disk.node.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), 512 * blocks, lba * 512)


def test_inquiry(sg: Path) -> None:
    text = told("sg_inq", "-d", sg)
    assert "PQual=0 PDT=0 RMB=0" in text
    assert "3PC=1 Protect=0" in text
    assert "CmdQue=1" in text
    assert "Vendor identification: VSCSIHBA Product identification: VIRTUAL DISK" in text
    described = text.partition("Version descriptors:")[2]
    assert all(name in described for name in ("SAM-5", "SPC-5", "SBC-3", "SBC-4"))


def test_vital_product_data(sg: Path) -> None:
    text = told("sg_vpd", "-a", sg)
    for page in ("[sn]", "[di]", "[ei]", "[mpp]", "[tpc]", "[bl]", "[bdc]", "[lbpv]"):
        assert page in text, text
    serial = told("sg_vpd", "-p", "sn", sg).rpartition(" ")[2]
    assert f"vendor specific: VIRTUAL DISK {serial}" in text
    assert re.search(r"designator type: NAA, code set: Binary 0x3[0-9a-f]{15} ", text)
    assert "Maximum compare and write length: 255 blocks" in text
    assert "Maximum transfer length: 16384 blocks" in text
    assert "Non-rotating medium" in text
    assert "Unmap command supported (LBPU): 1" in text
    assert "Provisioning type: 2 (thin provisioned)" in text


def test_mode_pages(sg: Path) -> None:
    text = told("sg_modes", "-a", sg)
    assert "WP=0, DpoFua=1" in text
    for page in (
        "Read-Write error recovery",
        "Disconnect-Reconnect",
        "Caching",
        "Control",
        "Power condition",
        "Informational exceptions control",
    ):
        assert f">> {page}, page_control: current" in text, text


def test_log_pages(sg: Path, luns: list[Lun]) -> None:
    write(luns[0], 0, bytes(4096))
    text = told("sg_logs", "-a", sg)
    for page in ("Write error counter", "Read error counter", "Non-medium error", "Start-stop cycle counter"):
        assert f"{page} page" in text, text
    assert re.search(r"number of write commands = [1-9]", text)
    assert "IE asc = 0x0, ascq = 0x0" in text
    assert not re.search(r"(?:Total errors corrected|Total uncorrected errors) = [1-9]", text)


def test_operation_codes(sg: Path) -> None:
    rows = {tuple(line.split()[:1]) for line in run("sg_opcodes", sg).splitlines()}
    assert {("28",), ("2a",), ("42",), ("48",), ("83",), ("88",), ("89",), ("9e",), ("a3",)} <= rows
    text = told("sg_opcodes", "--opcode=0x89", sg)
    assert "Opcode=0x89 Command_name: Compare and write" in text
    assert "Command is supported [conforming to SCSI standard]" in text
    assert "Command is NOT supported" in told("sg_opcodes", "--opcode=0xd0", sg)
    assert "Logical unit reset" in told("sg_opcodes", "--tmf", sg)


def test_capacity(sg: Path) -> None:
    text = told("sg_readcap", "-l", sg)
    assert "prot_en=0" in text
    assert "lbpme=1, lbprz=1" in text
    assert f"Number of logical blocks={BLOCKS} Logical block length=512 bytes" in text
    assert f"Device size: {SIZE} bytes" in text


def test_verify(sg: Path, luns: list[Lun], noise: Path) -> None:
    write(luns[0], 8, noise.read_bytes())
    verify = ("sg_verify", "--ndo=4096", f"--in={noise}", "--count=8")
    run(*verify, "--lba=8", sg)
    assert "MISCOMPARE: started at LBA 0x9" in run(*verify, "--lba=9", sg, check=False)
    run("sg_verify", "--16", "--lba=0", "--count=4096", sg)


def test_compare_and_write(sg: Path, luns: list[Lun], noise: Path) -> None:
    write(luns[0], 5, bytes(512))
    both = noise.with_name("both")
    both.write_bytes(bytes(512) + noise.read_bytes()[:512])
    run("sg_compare_and_write", f"--in={both}", "--lba=5", sg)
    assert read(luns[0], 5) == noise.read_bytes()[:512]
    assert "Miscompare at byte offset: 0 " in told_although_failed(
        "sg_compare_and_write", f"--in={both}", "--lba=5", sg
    )
    assert read(luns[0], 5) == noise.read_bytes()[:512]


def told_although_failed(*words: str | Path) -> str:
    return " ".join(run(*words, check=False).split())


def test_unmap_and_lba_status(sg: Path, luns: list[Lun], noise: Path) -> None:
    write(luns[0], 64, noise.read_bytes() * 2)
    run("sg_unmap", "--force", "--lba=72", "--num=8", sg)
    text = told("sg_get_lba_status", "--lba=64", "--maxlen=4096", sg)
    assert re.search(r"LBA: 0x0+40 blocks: 8 mapped", text), text
    assert re.search(r"LBA: 0x0+48 blocks: +\d+ deallocated", text), text
    assert read(luns[0], 64, 16) == noise.read_bytes() + bytes(4096)


def test_write_same(sg: Path, luns: list[Lun], noise: Path) -> None:
    run("sg_write_same", "--lba=32", "--num=8", "--xferlen=512", f"--in={noise}", sg)
    assert read(luns[0], 32, 9) == noise.read_bytes()[:512] * 8 + bytes(512)
    run("sg_write_same", "--16", "--unmap", "--lba=32", "--num=8", "--xferlen=512", "--in=/dev/zero", sg)
    assert read(luns[0], 32, 8) == bytes(4096)
    assert "deallocated" in told("sg_get_lba_status", "--lba=32", sg)


@pytest.mark.parametrize(("mode", "code", "length"), [("data", 0x02, 512), ("echo", 0x0A, 128)])
def test_buffer(mode: str, code: int, length: int, sg: Path, noise: Path) -> None:
    part = noise.with_name("part")
    part.write_bytes(noise.read_bytes()[:length])
    run("sg_write_buffer", f"--mode={mode}", f"--in={part}", f"--length={length}", sg)
    # sg_read_buffer 1.46 asks for 0 bytes whatever its --length: sg_raw asks in its place.
    there = noise.with_name("there")
    cdb = bytes([0x3C, code, 0, 0, 0, 0, 0, *length.to_bytes(2, "big"), 0])
    run("sg_raw", f"--request={length}", f"--outfile={there}", sg, *(f"{byte:02x}" for byte in cdb))
    assert there.read_bytes() == part.read_bytes()
    run("sg_read_buffer", f"--mode={mode}", sg)


@pytest.mark.parametrize(
    "words",
    [
        ("sg_format", "--format", "--quick", "--wait"),
        ("sg_sanitize", "--block", "--quick", "--wait"),
        ("sg_sanitize", "--overwrite", "--zero", "--quick", "--wait"),
    ],
    ids=["format", "block-erase", "overwrite"],
)
def test_everything_is_erased(words: tuple[str, ...], sg: Path, luns: list[Lun], noise: Path) -> None:
    for lba in (0, BLOCKS - 8):
        write(luns[0], lba, noise.read_bytes())
    run(*words, sg)
    for lba in (0, BLOCKS - 8):
        assert read(luns[0], lba, 8) == bytes(4096)


def test_sanitize_in_the_background(sg: Path, luns: list[Lun], noise: Path) -> None:
    write(luns[0], 0, noise.read_bytes())
    run("sg_sanitize", "--overwrite", "--zero", "--quick", "--early", sg)
    ready = ("sh", "-c", f"sg_turs {sg} >/dev/null 2>&1 && echo ready")
    wait_until(lambda: run(*ready, check=False), "the end of the sanitizing")
    assert read(luns[0], 0, 8) == bytes(4096)


def test_copy_within_a_disk(sg: Path, luns: list[Lun], noise: Path) -> None:
    write(luns[0], 0, noise.read_bytes())
    run("sg_xcopy", f"if={sg}", f"of={sg}", "bs=512", "count=8", "seek=1000")
    assert read(luns[0], 1000, 8) == noise.read_bytes()


def test_copy_from_one_disk_to_another(luns: list[Lun], noise: Path) -> None:
    write(luns[0], 2000, noise.read_bytes())
    run("sg_xcopy", f"if={luns[0].sg}", f"of={luns[1].sg}", "bs=512", "count=8", "skip=2000", "seek=3000")
    assert read(luns[1], 3000, 8) == noise.read_bytes()


def test_copy_parameters(sg: Path) -> None:
    text = told("sg_copy_results", "--params", sg)
    assert "Segment descriptor 0x02: Copy from block device to block device" in text
    assert "Target descriptor 0xe4: Identification descriptor" in text


def test_mandatory_commands(sg: Path, tmp_path: Path) -> None:
    assert "total number of bad errors: 0" in told("scsi_mandat", sg)


def test_smart(luns: list[Lun]) -> None:
    text = told("smartctl", "-a", luns[0].node)
    assert "SMART Health Status: OK" in text
    assert f"User Capacity: {SIZE:,} bytes" in text
    assert "LU is thin provisioned, LBPRZ=1" in text
    assert "Solid State Device" in text
    assert "Elements in grown defect list: 0" in text
    assert re.search(r"read: 0 0 0 0 0 \d+\.\d+ 0 write: 0 0 0 0 0 \d+\.\d+ 0", text)


def test_self_test(sg: Path) -> None:
    assert "Default self-test returned GOOD status" in told("sg_senddiag", "-t", sg)


@pytest.mark.parametrize("words", [(), ("-z",)], ids=["discard", "zeroes"])
def test_blkdiscard(words: tuple[str, ...], luns: list[Lun], noise: Path) -> None:
    write(luns[1], 0, noise.read_bytes())
    run("blkdiscard", *words, luns[1].node)
    assert read(luns[1], 0, 8) == bytes(4096)


def test_lsblk_shows_discard_limits(luns: list[Lun]) -> None:
    row = run("lsblk", "--discard", "--bytes", "--noheadings", "--raw", luns[0].node).split()
    assert row[0] == luns[0].node.name
    alignment, granularity, largest = map(int, row[1:4])
    queue = luns[0].sysfs / "queue"
    assert (alignment, granularity) == (0, int((queue / "discard_granularity").read_text()))
    assert largest == int((queue / "discard_max_bytes").read_text()) > 0


def test_queue_limits_are_what_the_disk_says(luns: list[Lun]) -> None:
    queue = luns[0].sysfs / "queue"
    names = (
        "logical_block_size",
        "physical_block_size",
        "minimum_io_size",
        "rotational",
        "write_cache",
        "fua",
    )
    assert {name: (queue / name).read_text().strip() for name in names} == {
        "logical_block_size": "512",
        "physical_block_size": "512",
        "minimum_io_size": "512",
        "rotational": "0",
        "write_cache": "write back",
        "fua": "1",
    }
    assert int((queue / "max_sectors_kb").read_text()) <= 8192, "MAXIMUM TRANSFER LENGTH"
    assert int((queue / "discard_max_hw_bytes").read_text()) == 512 * MiB, "MAXIMUM UNMAP LBA COUNT"
    assert int((queue / "write_zeroes_max_bytes").read_text()) == 16 * MiB, "MAXIMUM WRITE SAME LENGTH"
