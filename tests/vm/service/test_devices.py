"""Disks over block devices whose names lead to other devices after a restart of the machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.polling import wait_until
from tests.vm.daemon import RUNNING, Service, kill, shows, vscsihba
from tests.vm.shell import run, settle

HOSTS = Path("/sys/bus/pseudo/drivers/scsi_debug")
MARK = b"somebody else's".ljust(4096, b".")


@contextmanager
def device(*parameters: str) -> Iterator[Path]:
    """A disk of the kernel's scsi_debug."""
    run("modprobe", "scsi_debug", "dev_size_mb=16", "delay=0", *parameters)
    try:
        (folder,) = wait_until(lambda: list(HOSTS.glob("adapter*/host*/target*/*:0/block/*")), "its disk")
        node = Path("/dev") / folder.name
        wait_until(node.exists, "its node")
        settle()
        yield node
        settle()
    finally:
        run("modprobe", "-r", "scsi_debug")


def test_another_device_under_the_same_name_is_served_only_after_apply(own_service: Service) -> None:
    service = own_service
    with device() as first:
        stacks = {"a": {"handler": "file", "path": str(first)}, "m": {"handler": "memory", "size": "1MiB"}}
        service.ask("apply", document={"version": 1, "backstores": stacks, "hbas": [shows(5, "a", "m")]})
        service.ask("save")
        (engine,) = service.engines(5)
        kill(engine)
        wait_until(lambda: service.engines(5) not in ([], [engine]) and service.all_run(), "another engine")
        service.ask("clear")
        service.kill()
        RUNNING.unlink()
    with device("uuid_ctl=1") as second:  # it is named by a UUID, not by an NAA identifier
        assert second == first
        second.write_bytes(MARK)
        service.start()
        state = service.lun(5, 0)["state"]
        assert state.startswith(f"failing: {second} is another device than when it was applied: ")
        assert "not wwid:naa." in state
        assert service.lun(5, 1)["state"] == "running"
        assert second.read_bytes()[:4096] == MARK
        path = service.folder / "shown.json"
        path.write_text(vscsihba("show"))
        vscsihba("apply", path)
        wait_until(service.all_run, "the disk over the other device")
        run("dd", "if=/dev/zero", f"of={service.disk(5, 0).node}", "bs=4k", "count=1", "oflag=direct")
        service.ask("clear")
