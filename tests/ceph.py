"""A Ceph cluster of one monitor and one storage daemon (bluestore) on the loopback interface.

It authenticates its clients, needs no root and no service manager, takes seconds to start, and ends with the
process that has started it. It needs the Debian packages of vagrant/packages/ceph.txt.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.polling import wait_until
from vscsihba.handlers.rbd import library

_PROGRAMS = ("ceph-mon", "ceph-osd", "ceph-authtool", "monmaptool")
_PR_SET_PDEATHSIG = 1

WATCH_TIMEOUT = 5
"""Seconds after which the cluster gives a silent client up (osd_client_watch_timeout; 30 by default)."""

_CONF = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{port},v1:127.0.0.1:{port_v1}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = {folder}/$name.keyring
run_dir = {folder}
admin_socket =
pid_file =
log_file = {folder}/$name.log
crash_dir = {folder}
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
paxos_propose_interval = 0.05
paxos_min_wait = 0.02
ms_bind_port_min = 17000
ms_bind_port_max = 65000
[client]
log_file =
[mon]
mon_data = {folder}/mon
mon_data_avail_crit = 0
mon_data_avail_warn = 0
mon_cluster_log_to_file = false
keyring = {folder}/mon.keyring
[osd]
osd_data = {folder}/osd
osd_objectstore = bluestore
osd_memory_target = 939524096
osd_client_watch_timeout = {watch}
osd_crush_initial_weight = 1
bluestore_block_size = {size}
bluestore_fsck_on_mkfs = false
[mgr]
mgr_data = {folder}/mgr
mgr_stats_period = 1
mgr_tick_period = 1
"""


def missing() -> str:
    """Return a line about programs and modules that are missing on this machine; empty if none is."""
    lacking = [program for program in _PROGRAMS if shutil.which(program) is None]
    lacking += [f"Python's {module}" for module in ("rados", "rbd") if find_spec(module) is None]
    return f"needs {', '.join(lacking)}: ./dev setup --ceph" if lacking else ""


class Cluster:
    """A running cluster.

    Args:
        folder: Everything of it.
        size: Bytes of its storage.

    Attributes:
        conf: Its configuration file.
    """

    def __init__(self, folder: Path, size: int = 2 << 30) -> None:
        self.folder = folder
        self.conf = folder / "ceph.conf"
        self._size = size
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._client: Any = None

    def start(self) -> None:
        """Make and start it, with a pool `rbd`."""
        fsid, port = str(uuid.uuid4()), _free_ports()
        for name in ("mon", "osd"):
            (self.folder / name).mkdir()
        self.conf.write_text(
            _CONF.format(
                fsid=fsid,
                port=port,
                port_v1=port + 1,
                folder=self.folder,
                watch=WATCH_TIMEOUT,
                size=self._size,
            )
        )
        mon_key, admin_key = self.folder / "mon.keyring", self.keyring("admin")
        _run("ceph-authtool", "-C", mon_key, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        caps = [word for kind in ("mon", "osd", "mgr") for word in ("--cap", kind, "allow *")]
        _run("ceph-authtool", "-C", admin_key, "--gen-key", "-n", "client.admin", *caps)
        _run("ceph-authtool", mon_key, "--import-keyring", admin_key)
        admin_key.chmod(0o600)
        address = f"[v2:127.0.0.1:{port},v1:127.0.0.1:{port + 1}]"
        monmap = self.folder / "monmap"
        _run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        _run("ceph-mon", "--conf", self.conf, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", mon_key)
        self._spawn("mon", "ceph-mon", "-i", "a")
        self._client = library.rados().Rados(conffile=str(self.conf), rados_id="admin")
        self._client.connect(timeout=60)
        osd = str(uuid.uuid4())
        self.command("osd new", uuid=osd)
        (self.folder / "osd.0.keyring").write_bytes(
            self.command(
                "auth get-or-create", entity="osd.0", caps=["mon", "allow profile osd", "osd", "allow *"]
            )
        )
        _run("ceph-osd", "--conf", self.conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
        self.command("osd crush add", id=0, weight=1.0, args=["root=default"])
        self.start_osd()
        self.make_pool("rbd")

    def stop(self) -> None:
        """Kill it."""
        if self._client is not None:
            self._client.shutdown()
        for process in self._processes.values():
            process.kill()
            process.wait()

    def command(self, prefix: str, **arguments: Any) -> bytes:
        """Send a command to the monitor, and return its output."""
        request = {"prefix": prefix, "format": "plain", **arguments}
        number, out, text = self._client.mon_command(json.dumps(request), b"", timeout=60)
        assert number == 0, f"{prefix}: {text}"
        return bytes(out)

    def make_pool(self, name: str) -> None:
        """Make a pool for images."""
        self.command("osd pool create", pool=name, pg_num=8)
        self.command("osd pool application enable", pool=name, app="rbd")

    def make_user(self, name: str, **caps: str) -> Path:
        """Make a user with capabilities, such as ``mon="profile rbd"``; return its keyring."""
        words = [word for pair in caps.items() for word in pair]
        path = self.keyring(name)
        path.write_bytes(self.command("auth get-or-create", entity=f"client.{name}", caps=words))
        path.chmod(0o600)
        return path

    def keyring(self, name: str) -> Path:
        """Return the path of the keyring of a user."""
        return self.folder / f"client.{name}.keyring"

    def start_osd(self) -> None:
        """Start the storage daemon, and wait until it is up."""
        before = self._boots()
        self._spawn("osd", "ceph-osd", "-i", "0")
        # Each look costs the monitor a request, which delays the start on one processor. A start that takes
        # 2 s natively took more than 120 s in the sandbox, with a few per cent of a processor.
        wait_until(lambda: self._boots() > before, "the storage daemon is up", limit=300, pause=0.2)

    def _boots(self) -> int:
        """Return the epoch of the latest start of the storage daemon, since a killed one counts as up."""
        (osd,) = json.loads(self.command("osd dump", format="json"))["osds"]
        return int(osd["up_from"])

    def start_mgr(self) -> None:
        """Start a manager (ceph-mgr), and wait until it has told the monitor how much room there is."""
        folder = self.folder / "mgr"
        folder.mkdir()
        caps = ["mon", "allow profile mgr", "osd", "allow *"]
        (self.folder / "mgr.x.keyring").write_bytes(
            self.command("auth get-or-create", entity="mgr.x", caps=caps)
        )
        self._spawn("mgr", "ceph-mgr", "-i", "x")
        wait_until(lambda: self._room() > 0, "the manager knows how much room there is", pause=0.2)

    def _room(self) -> int:
        pools = json.loads(self.command("df", format="json"))["pools"]
        return max((pool["stats"]["max_avail"] for pool in pools), default=0)

    def mend(self) -> None:
        """Start the storage daemon again if a test has left it dead."""
        if self._processes["osd"].poll() is not None:
            self.start_osd()

    def kill_osd(self) -> None:
        """Kill the storage daemon (SIGKILL)."""
        process = self._processes["osd"]
        process.kill()
        process.wait()

    def set_full_ratio(self, ratio: float) -> None:
        """Let the storage count as full from a share of its size on."""
        self.command("osd set-nearfull-ratio", ratio=ratio * 0.8)
        self.command("osd set-backfillfull-ratio", ratio=ratio * 0.9)
        self.command("osd set-full-ratio", ratio=ratio)

    @contextlib.contextmanager
    def stalled_osd(self) -> Iterator[None]:
        """Stop the storage daemon inside the context, as if the machine hung: connections stay."""
        process = self._processes["osd"]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def pool(self, name: str = "rbd") -> Iterator[Any]:
        """Give an I/O context of a pool to a client of its own, beside the disk under test."""
        with ExitStack() as closing:
            client = library.rados().Rados(conffile=str(self.conf), rados_id="admin")
            client.conf_set("rbd_cache", "false")
            client.connect(timeout=60)
            closing.callback(client.shutdown)
            pool = client.open_ioctx(name)
            closing.callback(pool.close)
            yield pool

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.stderr").open("ab") as errors:
            self._processes[name] = subprocess.Popen(
                [*command, "--conf", str(self.conf), "-f"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it takes no lock
            )


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run a cluster inside the context."""
    running = Cluster(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _run(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"


def _free_ports() -> int:
    """Return a TCP port of the loopback interface that is free, with its successor."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + 1))
                return port


if __name__ == "__main__":  # a cluster for trying things: python -m tests.ceph FOLDER
    import sys

    top = Path(sys.argv[1])
    top.mkdir(parents=True)
    with cluster(top.absolute()) as tried:
        print(f"--conf {tried.conf}; ends with this process ({os.getpid()})", flush=True)
        signal.pause()
