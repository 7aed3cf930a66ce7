"""``vscsihba sandbox`` as an ordinary user, on this machine's User-Mode Linux."""

import hashlib
import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.polling import poll
from tests.sandbox.conftest import MakeUser
from tests.sandbox.ordinary import LIMIT, OrdinaryUser, processes

pytestmark = pytest.mark.timeout(600)

MKFS = "mkfs.ext4 -q /dev/sda && mount /dev/sda /mnt && df --output=target /mnt"


def test_an_ordinary_user_has_a_file_system_on_a_disk(user: OrdinaryUser) -> None:
    done = user.run("--json", "--disk", "memory:64MiB", "--", "sh", "-c", f"{MKFS}; id -u")
    assert done.stdout.decode().split() == ["Mounted", "on", "/mnt", "0"], done.stderr.decode()
    report = json.loads(done.stderr.decode().splitlines()[-1])
    assert (report["exit_code"], report["timed_out"], done.returncode) == (0, False, 0)


def test_input_output_and_exit_code_pass_through(user: OrdinaryUser) -> None:
    """The input is longer than the credit for input in flight."""
    data = os.urandom(300_000)
    done = user.run(
        "--", "sh", "-c", "sha256sum; head -c 500000 /dev/zero; echo told >&2; pwd >&2; exit 7", input=data
    )
    digest, _, rest = done.stdout.partition(b"\n")
    assert digest.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert rest == bytes(500_000)
    assert done.stderr.decode().splitlines() == ["told", str(user.home)]
    assert done.returncode == 7


def test_input_that_is_not_read_delays_nothing(user: OrdinaryUser) -> None:
    done = user.run("--", "true", input=bytes(1 << 20))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_disks_of_a_document_and_files_of_a_folder(user: OrdinaryUser) -> None:
    """Only writes to a writable folder reach this machine."""
    folder = user.home / "out"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    document = user.home / "disks.json"
    lun = {"lun": 0, "backstore": "one"}
    document.write_text(
        json.dumps(
            {
                "version": 1,
                "backstores": {"one": {"handler": "memory", "size": "8MiB"}},
                "hbas": [{"id": 3, "luns": [lun]}],
            }
        )
    )
    sizes = "lsblk --nodeps --noheadings --bytes --output SIZE /dev/sda /dev/sdb"
    script = f'({sizes}; echo "$NAMED") >out/sizes; echo no >lost'
    words = ["--disks", "disks.json", "--disk", "memory:16MiB", "--writable", "out", "--scratch", "64MiB"]
    done = user.run(*words, "--env", "NAMED=here", "--", "sh", "-ec", f"{script}; mountpoint -q /run/scratch")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (folder / "sizes").read_text().split() == [str(8 << 20), str(16 << 20), "here"]
    assert not (user.home / "lost").exists()


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["no-such-program"], 127, "no-such-program: command not found"),
        (["/etc/passwd"], 126, "/etc/passwd: Permission denied"),
    ],
)
def test_a_command_that_cannot_be_run(
    user: OrdinaryUser, command: list[str], code: int, message: str
) -> None:
    done = user.run("--", *command)
    assert (done.returncode, done.stderr.decode()) == (code, f"vscsihba: {message}\n")


def test_a_disk_that_cannot_be_made(user: OrdinaryUser) -> None:
    done = user.run("--disk", str(user.home / "none.img"), "--", "echo", "never")
    assert (done.returncode, done.stdout) == (125, b"")
    assert "none.img" in done.stderr.decode()
    assert len(done.stderr.decode().splitlines()) == 1


def test_the_time_limit(user: OrdinaryUser) -> None:
    done = user.run("--timeout", "20", "--", "sleep", "600")
    assert done.returncode == 124
    assert "the time limit of 20 s was reached" in done.stderr.decode()


def test_the_time_limit_shows_what_waits_in_the_kernel(user: OrdinaryUser) -> None:
    done = user.run("--verbose", "--timeout", "20", "--", "sleep", "600")
    assert done.returncode == 124
    tail = done.stderr.decode().partition("the time limit of 20 s was reached")[2]
    assert "s of processor time within a second" in tail
    assert "processes that wait in it: sysrq: Show Blocked State" in tail, "the kernel has answered"
    assert "its last messages:" in tail


def test_signals_are_passed_to_the_command(user: OrdinaryUser) -> None:
    script = "trap 'echo stopped; exit 5' TERM; echo up; while :; do sleep 0.1; done"
    with user.start("--", "sh", "-c", script, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"stopped\n"
        assert process.wait(LIMIT) == 5


def test_a_reader_that_goes_away_ends_it(user: OrdinaryUser) -> None:
    with user.start("--", "yes", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(LIMIT) != 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_closed_stream_is_no_fault(user: OrdinaryUser, stream: int) -> None:
    shell = [
        "sh",
        "-c",
        f'exec "$@" {stream}{"<" if stream == 0 else ">"}&-',
        "sh",
        *user.command("--", "true"),
    ]
    done = subprocess.run(
        shell, env=user.environ(), cwd=user.home, capture_output=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("seed", range(10))
def test_nothing_stays_after_a_kill(user: OrdinaryUser, seed: int) -> None:
    """One process of the run is killed at a random moment: during the boot, or beside the command."""
    chance = random.Random(seed)
    before = set(processes())
    words = ["--disk", "memory:16MiB", "--", "sh", "-c", "sleep 3"]
    with user.start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        poll(lambda: process.poll() is not None, limit=chance.uniform(0.0, 7.0))
        victims = [process.pid, *sorted(set(processes()) - before)]
        victim = chance.choice([*victims[:3], chance.choice(victims)])
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            victim = 0
        assert process.wait(LIMIT) is not None


def test_in_a_hardened_container(make_user: MakeUser) -> None:
    """A user namespace, no new privileges, a read-only root and a /dev/shm of 64 MiB."""
    harden = (
        "set -e; mount --rbind / /; "
        "mount -t tmpfs -o size=64m shm /dev/shm; mount -t tmpfs -o size=3g tmp /srv; "
        "mount -o remount,ro,bind /; if touch /var/tmp/x 2>/dev/null; then exit 99; fi; "
        'exec setpriv --no-new-privs -- "$@"'
    )
    if subprocess.run(["unshare", "--user", "true"], check=False).returncode:
        pytest.skip("needs user namespaces")
    user = make_user(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", harden, "sh"])
    environ = {**user.environ(), "TMPDIR": "/srv", "XDG_CACHE_HOME": "/srv/cache"}
    done = user.run("--disk", "memory:64MiB", "--", "sh", "-c", MKFS, env=environ)
    assert done.stdout.decode().split() == ["Mounted", "on", "/mnt"], done.stderr.decode()


def test_a_machine_without_ptrace(make_user: MakeUser) -> None:
    user = make_user(["python3", str(Path(__file__).with_name("without_ptrace.py"))])
    done = user.run("--", "true")
    assert done.returncode == 125
    (line,) = done.stderr.decode().splitlines()
    assert "allow ptrace" in line


def test_folders_that_are_mounted_noexec(make_user: MakeUser) -> None:
    if subprocess.run(["unshare", "--user", "true"], check=False).returncode:
        pytest.skip("needs user namespaces")
    folders = ("/dev/shm", "/tmp", "/var/tmp")
    mounts = "; ".join(f"mount -t tmpfs -o noexec,size=4g x {folder}" for folder in folders)
    user = make_user(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", f'{mounts}; exec "$@"', "sh"]
    )
    environ = {**user.environ(), "XDG_CACHE_HOME": "/var/tmp"}
    done = user.run("--", "true", env=environ)
    assert done.returncode == 125
    (line,) = done.stderr.decode().splitlines()
    assert "/dev/shm is mounted noexec" in line
    assert "set TMPDIR" in line
