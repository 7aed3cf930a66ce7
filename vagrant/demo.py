"""A demo: a file becomes a disk with a file system, and the data is found in the file.

Needs root and a kernel with target_core_user and tcm_loop; uses vscsitarget's command line and output. Knows
nothing of the package's modules, nor whether it runs in a VM.
"""

import contextlib
import hashlib
import os
import re
import select
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

IMAGE_SIZE = 64 << 20
PARTITION_START = 1 << 20
LIMIT = 120.0
"""Seconds for each wait; software emulation is slow."""
MARKER = "the data of the vscsihba demo"
VSCSITARGET = Path(sys.executable).parent / "vscsitarget"
COLOUR = (sys.stdout.isatty() or "FORCE_COLOR" in os.environ) and "NO_COLOR" not in os.environ


class DemoError(Exception):
    """A step failed; the message has the reason."""


def out(text: str, style: str = "") -> None:
    """Print a line, in an ANSI style if colours are enabled."""
    sys.stdout.write(f"\033[{style}m{text}\033[0m\n" if style and COLOUR else f"{text}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def step(number: int, heading: str) -> Iterator[None]:
    """Show a step's heading, and its duration."""
    out(f"\n{number}. {heading}", "1;36")
    start = time.monotonic()
    yield
    out(f"   ({time.monotonic() - start:.1f} s)", "2")


def show(*command: str) -> str:
    """Show a command, run it, and show and return its output."""
    out(f"   # {shlex.join(command)}", "1")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    for line in done.stdout.rstrip().splitlines():
        out(f"   {line}")
    if done.returncode != 0:
        raise DemoError(f"{command[0]} ended with exit code {done.returncode}")
    return done.stdout


def check(holds: object, what: str) -> None:
    """Show that a condition holds, or raise DemoError."""
    if not holds:
        raise DemoError(f"failed: {what}")
    out(f"   ✓ {what}", "32")


class Target:
    """A running vscsitarget that serves one image."""

    def __init__(self, image: Path) -> None:
        command = [str(VSCSITARGET), "id=0", "-files", image.name]
        out(f"   # {VSCSITARGET.name} {' '.join(command[1:])}", "1")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self._first_line()
        out(f"   {line}")
        match = re.search(r"/dev/\S+", line)
        if match is None:
            raise DemoError("no device in the line of vscsitarget")
        self.node = Path(match[0])

    def _first_line(self) -> str:
        pipe = self._process.stdout
        if pipe is None or not select.select([pipe], [], [], LIMIT)[0]:
            raise DemoError(f"vscsitarget was not ready within {LIMIT:.0f} s")
        line = pipe.readline().rstrip()
        if not line:
            raise DemoError(f"vscsitarget ended with exit code {self._process.wait()}")
        return line

    def stop(self) -> int:
        """End vscsitarget, which detaches everything, and return its exit code."""
        self._process.terminate()
        return self._process.wait(LIMIT)

    def kill(self) -> None:
        """Kill the process if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LIMIT)
            self._process.kill()


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_file_system(node: Path) -> Path:
    """Partition the disk and create an ext4; return the partition's node."""
    disk = str(node)
    with step(4, "Partition it and make a file system"):
        show("parted", "--script", disk, "mklabel", "gpt", "mkpart", "demo", "1MiB", "100%")
        show("udevadm", "settle", f"--timeout={LIMIT:.0f}")
        partition = node.with_name(f"{node.name}1")
        show("mkfs.ext4", "-q", str(partition))
        show("lsblk", "--output", "NAME,SIZE,TYPE,FSTYPE,PARTLABEL", disk)
    return partition


def write_and_read(partition: Path, folder: Path) -> str:
    """Write files through the disk, read them back past the cache, and return their checksum."""
    letter = folder / "hello.txt"
    bulk = folder / "random.bin"
    with step(5, "Mount it and write"):
        show("mount", str(partition), str(folder))
        letter.write_text(f"{MARKER}\n")
        bulk.write_bytes(os.urandom(8 << 20))
        written = checksum(bulk)
        show("ls", "-l", str(folder))
        out(f"   sha256 of random.bin: {written}")
        show("umount", str(folder))
    with step(6, "Mount it again and read back, from the disk and not from memory"):
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        show("mount", str(partition), str(folder))
        check(letter.read_text() == f"{MARKER}\n", "hello.txt has the written text")
        check(checksum(bulk) == written, f"random.bin has the checksum {written[:16]}...")
        show("umount", str(folder))
    return written


def find_in_image(image: Path, written: str) -> None:
    """Show that the data is in the image file, without a disk and a mount."""
    with step(8, "Find the data in the image file"):
        show("grep", "--only-matching", "--byte-offset", "--text", "--max-count=1", MARKER, str(image))
        inside = f"{image}?offset={PARTITION_START}"
        show("debugfs", "-R", "cat /hello.txt", inside)
        copy = image.with_name("copy.bin")
        show("debugfs", "-R", f"dump /random.bin {copy}", inside)
        check(checksum(copy) == written, f"random.bin in {image.name} has the checksum {written[:16]}...")


def run() -> None:
    """Run the demo in the current folder, which is empty and on a file system with sparse files."""
    image = Path("a.img")
    mounted = Path("mounted")
    mounted.mkdir()
    with step(1, "Create an image file"):
        show("truncate", f"--size={IMAGE_SIZE}", str(image))
        show("ls", "-ls", str(image))
    with step(2, "Serve it"):
        target = Target(image)
    try:
        with step(3, "It is a SCSI disk"):
            show("fdisk", "--list", str(target.node))
            show("lsblk", "--scsi", str(target.node))
        written = write_and_read(make_file_system(target.node), mounted)
        with step(7, "Detach it"):
            check(target.stop() == 0, "vscsitarget ended with exit code 0")
            check(not target.node.exists(), f"{target.node} is gone")
    except BaseException:
        subprocess.run(["umount", "--quiet", str(mounted)], check=False, stderr=subprocess.DEVNULL)
        target.kill()
        raise
    find_in_image(image, written)


def main() -> int:
    """Run the demo in a folder of its own and return the exit code."""
    start = time.monotonic()
    out(f"A file becomes a disk: vscsihba on Linux {os.uname().release}", "1")
    parent = os.environ.get("VSCSIHBA_SCRATCH")
    try:
        with tempfile.TemporaryDirectory(prefix="vscsihba-demo-", dir=parent) as name, contextlib.chdir(name):
            run()
    except (DemoError, OSError, subprocess.SubprocessError) as error:
        out(f"\nThe demo failed: {error}", "1;31")
        return 1
    out(f"\nDone in {time.monotonic() - start:.1f} s.", "1;32")
    return 0


if __name__ == "__main__":
    sys.exit(main())
