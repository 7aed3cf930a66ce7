"""Valid and invalid addresses, and keys that others can read."""

from pathlib import Path

import pytest

from vscsihba.errors import UsageError
from vscsihba.handlers.nbd.address import Address


@pytest.mark.parametrize(
    "uri",
    [
        "nbd://server",
        "nbd://server/disk",
        "nbd://[::1]:10810/disk",
        "nbds://me@server/disk",
        "nbd+unix:///?socket=/run/nbd.sock",
        "nbds+unix:///a%20disk?socket=/run/nbd.sock",
    ],
)
def test_good_addresses(uri: str, tmp_path: Path) -> None:
    (tmp_path / "ca-cert.pem").touch()
    Address(uri, tls_certificates=str(tmp_path) if uri.startswith("nbds") else "").check()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "is not the URI"),
        ("/srv/disk.img", "is not the URI"),
        ("//server/disk", "is not the URI of an NBD export; on a command line, write nbd:nbd://HOST/EXPORT"),
        ("http://server/disk", "is not the URI"),
        ("nbd://", "names no host"),
        ("nbd:///disk", "names no host"),
        ("nbd://server:port/disk", "is not a URI"),
        ("nbd://server:99999/disk", "is not a URI"),
        ("nbd+unix:///disk", "names no socket"),
        ("nbd+unix:///?socket=", "names no socket"),
        ("nbd+unix://server/?socket=/run/x", "names no socket"),
        ("nbd+unix:///?socket=run/x", "is a relative path"),
        ("nbd://server/?tls-psk-file=/etc/psk", "'tls-psk-file' is not part"),
        ("nbd://me:secret@server/", "must not have a password"),
    ],
)
def test_bad_addresses(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Address(uri).check()
    assert "secret" not in str(caught.value)


def test_names() -> None:
    address = Address("nbds+unix://me@/a%20disk?socket=/run/nbd.sock")
    assert address.export == "a disk"
    assert address.name == "nbds+unix:///a%20disk?socket=/run/nbd.sock"
    assert Address("nbd://server/x").name == "nbd://server/x"


def test_keys_without_encryption_are_refused(tmp_path: Path) -> None:
    (psk := tmp_path / "psk").touch(0o600)
    with pytest.raises(UsageError, match="is not encrypted"):
        Address("nbd://server/", tls_psk_file=str(psk)).check()


@pytest.mark.parametrize("uri", ["nbds://server/", "nbds+unix:///?socket=/run/nbd.sock"])
def test_encryption_without_keys_is_refused(uri: str) -> None:
    """libnbd 1.14 accepts every certificate if it is told of no authority."""
    with pytest.raises(UsageError, match="nothing would identify the server"):
        Address(uri).check()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    psk = tmp_path / "psk"
    with pytest.raises(UsageError, match="No such file"):
        Address("nbds://server/", tls_psk_file=str(psk)).check()
    psk.touch(0o600)
    Address("nbds://server/", tls_psk_file=str(psk)).check()
    for mode in (0o640, 0o604, 0o620):
        psk.chmod(mode)
        with pytest.raises(UsageError, match="others can read"):
            Address("nbds://server/", tls_psk_file=str(psk)).check()


def test_the_key_of_a_certificate_likewise(tmp_path: Path) -> None:
    address = Address("nbds://server/", tls_certificates=str(tmp_path))
    with pytest.raises(UsageError, match=r"ca-cert\.pem: no such file"):
        address.check()
    (tmp_path / "ca-cert.pem").touch()
    address.check()
    (tmp_path / "client-key.pem").touch(0o644)
    with pytest.raises(UsageError, match="others can read"):
        address.check()
    (tmp_path / "client-key.pem").chmod(0o600)
    address.check()
