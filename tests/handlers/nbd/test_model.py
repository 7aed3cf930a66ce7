"""The model test of all handlers, on real NBD servers."""

import subprocess
from pathlib import Path

from hypothesis.stateful import rule

from tests.handlers.nbd.servers import Server, nbdkit, needs_nbdkit, needs_qemu_nbd, qemu_nbd
from vscsihba.handlers.stack import Document
from vscsihba.testing.disk_model import DiskModel, as_tests


class ServedModel(DiskModel):
    """A disk of a server that runs as long as the machine of the test."""

    resizes = False

    def server(self, directory: Path) -> Server:
        raise NotImplementedError

    def prepare(self, directory: Path) -> bytearray:
        (directory / "disk.img").write_bytes(bytes(self.size))
        self.running = self.server(directory)
        self.running.start()
        return bytearray(self.size)

    def document(self, directory: Path) -> Document:
        return self.running.document(timeout=60)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "running"):
            self.running.kill()


class NbdkitMemory(ServedModel):
    def server(self, directory: Path) -> Server:
        return nbdkit(directory, "memory", str(self.size))


class NbdkitFile(ServedModel):
    def server(self, directory: Path) -> Server:
        return nbdkit(directory, "file", str(directory / "disk.img"))


class SmallRequests(ServedModel):
    """A server that takes blocks of 4096 bytes only, and 64 KiB at once."""

    def server(self, directory: Path) -> Server:
        return nbdkit(
            directory,
            "--filter=blocksize-policy",
            "memory",
            str(self.size),
            "blocksize-minimum=4096",
            "blocksize-preferred=4096",
            "blocksize-maximum=65536",
            "blocksize-error-policy=error",
        )


class NoFeatures(ServedModel):
    """A server without zeroes and several connections."""

    def server(self, directory: Path) -> Server:
        return nbdkit(
            directory,
            "--filter=nozero",
            "--filter=multi-conn",
            "memory",
            str(self.size),
            "multi-conn-mode=disable",
        )


class QemuRaw(ServedModel):
    def server(self, directory: Path) -> Server:
        return qemu_nbd(directory, directory / "disk.img", "--format=raw", "--discard=unmap")


class QemuQcow2(ServedModel):
    def server(self, directory: Path) -> Server:
        image = directory / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), str(self.size)], check=True)
        return qemu_nbd(directory, image, "--format=qcow2", "--discard=unmap")


class Crashing(ServedModel):
    """A server that is killed, and loses everything since the last flush each time.

    Without extents and unmaps: its cache filter passes both on to the file below it (nbdkit 1.32).
    """

    def server(self, directory: Path) -> Server:
        image = str(directory / "disk.img")
        filters = ("--filter=noextents", "--filter=cache")
        return nbdkit(directory, *filters, "file", "cache=writeback", image)

    @rule()
    def unmap(self) -> None:
        """Do nothing: the file loses the bytes at once, and the cache returns them until it is lost."""

    @rule()
    def crash(self) -> None:
        """Kill the server and start it again."""
        self.running.kill()
        self.running.start()


class CrashingBelowCow(Crashing):
    """The same below a filter that uses the synchronous verbs."""

    resizes = False
    grows_with_zeroes = False

    def document(self, directory: Path) -> Document:
        overlay = str(directory / "disk.cow")
        return {"handler": "cow", "path": overlay, "create": True, "next": super().document(directory)}


class CrashingQcow2(QemuQcow2):
    """A server that loses the tables of its image since the last flush."""

    @rule()
    def crash(self) -> None:
        """Kill the server and start it again."""
        self.running.kill()
        self.running.start()


TestCrashing = needs_nbdkit(as_tests(Crashing, examples=10))
TestCrashingBelowCow = needs_nbdkit(as_tests(CrashingBelowCow, examples=5))
TestNbdkitMemory = needs_nbdkit(as_tests(NbdkitMemory, examples=10))
TestNbdkitFile = needs_nbdkit(as_tests(NbdkitFile, examples=10))
TestSmallRequests = needs_nbdkit(as_tests(SmallRequests, examples=10))
TestNoFeatures = needs_nbdkit(as_tests(NoFeatures, examples=10))
TestQemuRaw = needs_qemu_nbd(as_tests(QemuRaw, examples=10))
TestQemuQcow2 = needs_qemu_nbd(as_tests(QemuQcow2, examples=10))
TestCrashingQcow2 = needs_qemu_nbd(as_tests(CrashingQcow2, examples=10))
