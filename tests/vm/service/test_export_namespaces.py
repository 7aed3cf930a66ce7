"""An initiator and a target in two network namespaces, with a pair of virtual Ethernet devices between them.

The kernel's initiator knows the first namespace only, so the target is in the other one: LIO opens the
sockets of a portal in the namespace of the process that makes it, which is the service.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.daemon import running_service, vscsihba
from tests.vm.exported import HOST, NAME, document, left
from tests.vm.fio import Fio
from tests.vm.initiator import Initiator
from tests.vm.shell import mounted, run

NAMESPACE = "vscsihba-target"
HERE, THERE = "198.51.100.1", "198.51.100.2"
PORTAL = f"{THERE}:3260"
USER, SECRET = "host1", "a-secret-of-16-b"


@pytest.fixture
def wire(kernel: None) -> Iterator[None]:
    """A link between this namespace and another one."""
    run("modprobe", "veth")
    run("ip", "netns", "add", NAMESPACE)
    try:
        run("ip", "link", "add", "vscsihba0", "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE)
        run("ip", "address", "add", f"{HERE}/24", "dev", "vscsihba0")
        run("ip", "link", "set", "vscsihba0", "up")
        run("ip", "-n", NAMESPACE, "address", "add", f"{THERE}/24", "dev", "eth0")
        run("ip", "-n", NAMESPACE, "link", "set", "eth0", "up")
        yield
    finally:
        run("ip", "netns", "delete", NAMESPACE)


def test_a_disk_behind_a_network(wire: None, scratch: Path) -> None:
    secret = scratch / "secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    entry = {"name": HOST, "user": USER, "password_file": str(secret)}
    with (
        running_service(scratch, ("nsenter", f"--net=/run/netns/{NAMESPACE}")) as service,
        Initiator(HOST, scratch) as initiator,
    ):
        vscsihba("apply", service.document(document(scratch, "a", initiators=[entry], portals=[PORTAL])))
        initiator.record(NAME, PORTAL)
        initiator.authenticate(NAME, PORTAL, USER, "another-secret")
        assert "authorization failure" in initiator.login(NAME, PORTAL, check=False)
        initiator.authenticate(NAME, PORTAL, USER, SECRET)
        initiator.login(NAME, PORTAL)
        (shown,) = service.ask("status")["exports"]
        assert shown["sessions"] == [{"initiator": HOST, "addresses": [HERE]}]
        disk = initiator.disk(NAME, PORTAL, 0)
        run("mkfs.ext4", "-q", disk)
        with mounted(disk, scratch / "mnt") as folder:
            fio = Fio([folder / "fio"])
            run("ip", "link", "set", "vscsihba0", "down")
            run("ip", "link", "set", "vscsihba0", "up")
            fio.finish()
        initiator.logout(NAME, PORTAL)
        wait_until(lambda: not service.ask("status")["exports"][0]["sessions"], "the end of the session")
        vscsihba("clear", "--all")
        assert left() == []
