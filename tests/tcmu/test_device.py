"""A TCMU device as a transport: descriptor, map and ring opened and closed together."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from tests.tcmu.process import descriptors, is_mapped
from tests.tcmu.server import READ_10, always, never
from vscsihba.errors import RingCorruptError
from vscsihba.loopback import Loopback
from vscsihba.tcmu.device import TcmuTransport
from vscsihba.tcmu.uio import UioDevice
from vscsihba.transport import Transport


@pytest.fixture
def device(tmp_path: Path) -> UioDevice:
    """A file with the memory of a device that has two commands waiting."""
    with closing(Loopback(ring_size=3968, blocks=4)) as loopback:
        for _ in range(2):
            loopback.submit(READ_10, data_in=512)
        node = tmp_path / "uio0"
        node.write_bytes(loopback.memory)
        return UioDevice(node, 0, "disk", "vscsihba", "", len(loopback.memory))


def test_commands_in_the_ring_are_served(device: UioDevice) -> None:
    """Everything over a real mapping: the kernel would find the stores of `publish` there."""
    tags = []
    with closing(TcmuTransport(device)) as served:
        assert served.pending()
        assert served.drain(never, lambda tag, _cdb, _views: tags.append(tag)) == 2
        for tag in tags:
            served.complete(tag, 0, data_in=0)
        assert served.take_management() == []
        with Path(os.devnull).open("wb") as nowhere:  # a kick must not write into the map's file
            os.dup2(nowhere.fileno(), served.fileno())
        served.publish()
    content = device.node.read_bytes()
    assert content[12:16] == content[64:68] == (256).to_bytes(4, "little")


def test_transport_keeps_the_protocol(device: UioDevice) -> None:
    with closing(TcmuTransport(device)) as served:
        transport: Transport = served
        assert transport.memory[0] == 2


def test_loopback_keeps_the_protocol() -> None:
    with closing(Loopback()) as loopback:
        transport: Transport = loopback.transport
        loopback.submit(READ_10)
        assert transport.drain(always, lambda *_: None) == 1


def test_ring_that_is_refused_closes_the_device(device: UioDevice) -> None:
    before = descriptors()
    with device.node.open("r+b") as node:
        node.write(b"\x01")
    with pytest.raises(RingCorruptError, match="mailbox version is 1"):
        TcmuTransport(device)
    assert descriptors() == before
    assert not is_mapped(device.node)


def test_open_commands_do_not_keep_the_map(device: UioDevice) -> None:
    with closing(TcmuTransport(device)) as served:
        assert served.drain(never, lambda *_: None) == 2
    assert not is_mapped(device.node)


def test_close_is_harmless_twice(device: UioDevice) -> None:
    served = TcmuTransport(device)
    served.close()
    served.close()
    assert not is_mapped(device.node)
