"""The Debian package on a real kernel: installed, upgraded under load, kept while in use, removed, purged.

One story, since each step needs the one before it. `./dev deb` has built the package; the upgrade is the same
package with another version in it.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm import daemon
from tests.vm.daemon import SAVED, Service, files, shows
from tests.vm.fio import Fio

TREE = Path(__file__).resolve().parents[2]
INSTALLED = Path("/usr/bin/vscsihba")
CONTENT = bytes(range(256)) * 256


def dpkg(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run dpkg without triggers: the index of all manual pages of this machine takes minutes in a sandbox."""
    done = subprocess.run(
        ["dpkg", "--no-triggers", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def package() -> Path:
    """The package that ./dev deb has built last."""
    found = sorted((TREE / "build/deb").glob("vscsihba_*.deb"), key=lambda path: path.stat().st_mtime)
    if not found and os.environ.get("VSCSIHBA_IN_VM") == "1":
        pytest.fail("build/deb has no package: run ./dev deb", pytrace=False)
    if not found:
        pytest.skip("needs a package in build/deb: run ./dev deb")
    return found[-1]


@pytest.fixture
def upgrade(package: Path, scratch: Path) -> Path:
    """The package of a later version, whose program says so."""
    folder = scratch / "package"
    subprocess.run(["dpkg-deb", "--raw-extract", package, folder], check=True)
    for name, old in (
        ("DEBIAN/control", r"(?m)^(Version: ).*"),
        (_init_of(folder), r'(__version__ = ").*(?=")'),
    ):
        path = folder / name
        path.write_text(re.sub(old, r"\g<1>9.0.0", path.read_text()))
    (folder / "DEBIAN/md5sums").unlink()
    made = scratch / "vscsihba_9.0.0.deb"
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "--build", folder, made], check=True)
    return made


def _init_of(folder: Path) -> Path:
    (found,) = (folder / "usr/lib/vscsihba/lib").glob("python3*/site-packages/vscsihba/__init__.py")
    return found.relative_to(folder)


@pytest.fixture
def service(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The service of the installed program; it is started by the test, and everything of it goes with it."""
    monkeypatch.setattr(daemon, "VSCSIHBA", INSTALLED)
    service = Service(scratch)
    yield service
    if service.process is not None and service.process.poll() is None:
        service.close()
    if INSTALLED.exists():
        dpkg("--purge", "vscsihba")


def restart(service: Service) -> None:
    """End the service and start it again, as its unit does in an upgrade."""
    service.kill(signal.SIGTERM)
    service.start()


def test_the_life_of_a_package(package: Path, upgrade: Path, service: Service, scratch: Path) -> None:
    dpkg("--install", package)
    assert daemon.vscsihba("--version").startswith("vscsihba 0.")
    subprocess.run(["getent", "group", "vscsihba"], check=True, capture_output=True)
    listed = [Path(line) for line in dpkg("--listfiles", "vscsihba").stdout.splitlines()]
    own = [path for path in listed if "vscsi" in path.name and not path.is_dir()]
    for name in ("vscsihba.service", "vscsihba.8.gz", "vscsihba.conf", "_vscsihba", "vscsitarget"):
        assert name in {path.name for path in own}

    service.start()
    document = {"version": 1, "backstores": files(scratch, "d1", "d2"), "hbas": [shows(240, "d1", "d2")]}
    daemon.vscsihba("apply", service.document(document))
    disk, names = service.disk(240, 0), [service.lun(240, number)["by_id"] for number in (0, 1)]
    engines = service.engines(240)
    subprocess.run(["dd", "of=" + str(service.disk(240, 1).node), "oflag=direct"], input=CONTENT, check=True)

    fio = Fio([disk], flushing=True)
    dpkg("--install", upgrade)
    restart(service)
    assert daemon.vscsihba("--version") == "vscsihba 9.0.0\n"
    assert (service.all_run(), service.engines(240)) == (True, engines)
    os.kill(engines[0], signal.SIGTERM)
    wait_until(lambda: service.engines(240) not in ([], engines) and service.all_run(), "a new engine")
    fio.finish()

    daemon.vscsihba("save")
    daemon.vscsihba("clear", "--all")
    restart(service)
    daemon.vscsihba("apply", SAVED)
    assert [service.lun(240, number)["by_id"] for number in (0, 1)] == names
    node = service.disk(240, 1).node
    assert node.read_bytes()[: len(CONTENT)] == CONTENT

    user = os.open(node, os.O_RDONLY | os.O_EXCL)
    try:
        refused = dpkg("--remove", "vscsihba", check=False)
        assert refused.returncode != 0
        assert "not removed while its disks are in use" in refused.stderr
        assert service.all_run()
        assert node.exists()
    finally:
        os.close(user)
    dpkg("--remove", "vscsihba")
    service.kill(signal.SIGTERM)
    assert [path for path in own if path.exists()] == []
    assert not Path("/usr/lib/vscsihba").exists()
    assert SAVED.exists()

    dpkg("--purge", "vscsihba")
    for folder in ("/etc/vscsihba", "/var/lib/vscsihba", "/run/vscsihba"):
        assert not Path(folder).exists(), list(Path(folder).iterdir())
    assert (scratch / "d2.img").read_bytes()[: len(CONTENT)] == CONTENT
