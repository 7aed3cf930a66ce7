"""Images of QEMU against a model: from outside, they are bytearrays."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from hypothesis.stateful import rule

from tests.handlers.places import MEMORY_DIRECTORY
from tests.handlers.qemu.images import NEEDS, check_tables, run
from vscsihba.handlers.qemu.handler import QemuHandler
from vscsihba.handlers.stack import Document
from vscsihba.testing.disk_model import KIB, DiskModel, as_tests

pytestmark = NEEDS


class ImageModel(DiskModel):
    """An image that is created when the disk opens first; QEMU's own tools have the last word."""

    scratch = MEMORY_DIRECTORY
    format = ""
    more: ClassVar[dict[str, object]] = {}
    killed = False

    @property
    def path(self) -> Path:
        """The image."""
        return self.directory / f"disk.{self.format}"

    def document(self, directory: Path) -> Document:
        """Describe the image."""
        path = str(directory / f"disk.{self.format}")
        return {"handler": "qemu", "path": path, "format": self.format, "size": self.size, **self.more}

    def teardown(self) -> None:
        """Check the image and compare every byte."""
        if self.stack is not None:
            self.stack.close()
            self.stack = None
            check_tables(self.path, self.format, killed=self.killed)
            raw = self.directory / "raw"
            run("qemu-img", "convert", "-f", self.format, "-O", "raw", self.path, raw)
            assert raw.read_bytes() == self.expected
        super().teardown()


class Qcow2(ImageModel):
    """The format of most virtual machines."""

    format = "qcow2"


class Vmdk(ImageModel):
    """A format that cannot be resized."""

    format = "vmdk"
    resizes = False


class Writethrough(ImageModel):
    """An image with every write on stable storage."""

    format = "qcow2"
    more: ClassVar = {"cache": "writethrough"}


class SmallLog(ImageModel):
    """An image with a log that is too small for most writes."""

    format = "qcow2"
    more: ClassVar = {"log_size": 64 * KIB}


class KilledDaemon(ImageModel):
    """An image with a daemon that dies again and again: nothing acknowledged is lost, flushed or not."""

    format = "qcow2"
    killed = True

    @rule()
    def kill(self) -> None:
        """Kill the daemon; another one takes its place."""
        assert self.stack is not None
        handler = next(layer for layer in self.stack.layers if isinstance(layer, QemuHandler))
        if handler.daemon is not None:
            with suppress(ProcessLookupError):  # it is dead already
                os.kill(handler.daemon, signal.SIGKILL)


class KilledDaemonSmallLog(KilledDaemon):
    """The same where most writes have no room in the log."""

    more: ClassVar = {"log_size": 64 * KIB}


test_qcow2 = as_tests(Qcow2, examples=10)
test_vmdk = as_tests(Vmdk, examples=6)
test_writethrough = as_tests(Writethrough, examples=4)
test_small_log = as_tests(SmallLog, examples=4)
test_killed_daemon = as_tests(KilledDaemon, examples=6)
test_killed_daemon_small_log = as_tests(KilledDaemonSmallLog, examples=4)
