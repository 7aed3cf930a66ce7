"""The contestants: a disk of ours, and one of each program that Debian packages to the same end.

Each is a context in which an image file is a block device. All are set up as their
manuals advise for speed; what that means is said beside each.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.vm.tcm_loop import backstore, linked
from tests.polling import wait_until
from tests.vm.target import Target

MODULES = ("nbd", "loop", "target_core_file", "target_core_user", "tcm_loop")
NBD_PLUGIN = Path(__file__).with_name("nbd_plugin.py")


@dataclass(frozen=True, slots=True)
class Contestant:
    """A disk that is ready.

    Attributes:
        name: As in `PEERS`.
        disk: Its block device.
        pids: The processes that serve it; none if that is the kernel.
    """

    name: str
    disk: Path
    pids: tuple[int, ...] = ()


Peer = Callable[[Path, int], AbstractContextManager[Contestant]]
"""``peer(image, number)``: make `image` a disk; `number` is different for each."""


def run(*words: str | Path) -> str:
    """Run a program and return its output.

    Raises:
        AssertionError: It failed; with its output.
    """
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, words))}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def background(*words: str | Path) -> Iterator[int]:
    """Run a program while the context is entered; yields its pid."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def vscsihba(image: Path, number: int) -> Iterator[Contestant]:
    """Ours, as it comes: ``vscsitarget`` with the file handler."""
    target = Target([image], number, (), image.with_suffix(".err"))
    try:
        (lun,) = target.wait_ready()
        yield Contestant("vscsihba", lun.node, (target.process.pid,))
    finally:
        target.finish()


@contextmanager
def loop(image: Path, _number: int) -> Iterator[Contestant]:
    """Use the kernel's loop device, through the page cache."""
    device = run("losetup", "--find", "--show", image).strip()
    try:
        yield Contestant("loop", Path(device))
    finally:
        run("losetup", "--detach", device)


@contextmanager
def fileio(image: Path, number: int) -> Iterator[Contestant]:
    """LIO's fileio over tcm_loop, through the page cache (without fd_buffered_io each write is O_DSYNC)."""
    control = f"fd_dev_name={image},fd_dev_size={image.stat().st_size},fd_buffered_io=1"
    with backstore(f"fileio_{number}", "bench", control) as made, linked(made, number) as disk:
        yield Contestant("LIO fileio", disk)


@contextmanager
def nbd(name: str, socket: Path, number: int, *server: str | Path) -> Iterator[Contestant]:
    """A server on a Unix socket, and the kernel's client."""
    device = Path(f"/dev/nbd{number}")
    with background(*server) as pid:
        wait_until(socket.exists, f"{socket} of {server[0]}")
        run("nbd-client", "-unix", socket, device)
        try:
            yield Contestant(name, device, (pid,))
        finally:
            run("nbd-client", "-d", device)
    socket.unlink(missing_ok=True)


def nbdkit_file(image: Path, number: int) -> AbstractContextManager[Contestant]:
    """nbdkit's file plugin, which is parallel (16 threads), and nbd-client."""
    socket = image.with_suffix(".sock")
    return nbd("nbdkit file", socket, number, "nbdkit", "-f", "-U", socket, "file", image)


def nbdkit_python(image: Path, number: int) -> AbstractContextManager[Contestant]:
    """nbdkit's Python plugin with a file plugin of few lines, parallel too, and nbd-client."""
    socket = image.with_suffix(".sock")
    server = ("nbdkit", "-f", "-U", socket, "python", NBD_PLUGIN, f"file={image}")
    return nbd("nbdkit Python", socket, number, *server)


def qemu_nbd(image: Path, number: int) -> AbstractContextManager[Contestant]:
    """qemu-nbd with a writeback cache, and nbd-client."""
    socket = image.with_suffix(".sock")
    server = ("qemu-nbd", "-t", "-f", "raw", "--cache=writeback", "-k", socket, image)
    return nbd("qemu-nbd", socket, number, *server)


@contextmanager
def tcmu_runner(image: Path, number: int) -> Iterator[Contestant]:
    """tcmu-runner with its qcow handler, which takes raw files: Debian packages no file handler of it."""
    with ExitStack() as undo:
        if not Path("/run/dbus/system_bus_socket").exists():
            Path("/run/dbus").mkdir(parents=True, exist_ok=True)
            undo.enter_context(background("dbus-daemon", "--system", "--nofork", "--nopidfile"))
            wait_until(Path("/run/dbus/system_bus_socket").exists, "the system bus")
        pid = undo.enter_context(background("tcmu-runner"))
        wait_until(lambda: "org.kernel.TCMUService1" in _bus_names(), "tcmu-runner on the bus")
        control = f"dev_config=qcow/{image},dev_size={image.stat().st_size}"
        made = undo.enter_context(backstore(f"user_{number}", "bench", control))
        disk = undo.enter_context(linked(made, number))
        yield Contestant("tcmu-runner", disk, (pid,))


def _bus_names() -> str:
    return run(
        "dbus-send",
        "--system",
        "--print-reply",
        "--dest=org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus.ListNames",
    )


PEERS: dict[str, Peer] = {
    "vscsihba": vscsihba,
    "loop": loop,
    "LIO fileio": fileio,
    "tcmu-runner": tcmu_runner,
    "nbdkit file": nbdkit_file,
    "qemu-nbd": qemu_nbd,
    "nbdkit Python": nbdkit_python,
}
"""By name, in the order of the tables."""

NEEDED: dict[str, tuple[str, ...]] = {
    "loop": ("losetup",),
    "tcmu-runner": ("tcmu-runner", "dbus-daemon", "dbus-send"),
    "nbdkit file": ("nbdkit", "nbd-client"),
    "qemu-nbd": ("qemu-nbd", "nbd-client"),
    "nbdkit Python": ("nbdkit", "nbd-client"),
}
"""Programs that a peer needs."""


@contextmanager
def contestants(folder: Path, names: list[str], size: int) -> Iterator[list[Contestant]]:
    """Make a disk of `size` random bytes for each of the named peers.

    Their queues are alike: no scheduler, no merging of requests, no entropy.
    """
    for module in MODULES:
        run("modprobe", module)
    data = os.urandom(1 << 20)
    found = []
    with ExitStack() as undo:
        for number, name in enumerate(names):
            image = folder / f"{number}.img"
            with image.open("wb") as file:
                for _ in range(size // len(data)):
                    file.write(data)
            found.append(undo.enter_context(PEERS[name](image, number)))
        for contestant in found:
            without_scheduler(contestant.disk)
        yield found
    for image in folder.glob("*.img"):
        image.unlink()


def without_scheduler(disk: Path) -> None:
    """Make a queue like those of the others: no scheduler, no merging of requests, no entropy."""
    queue = Path("/sys/block", disk.name, "queue")
    for key, value in (("scheduler", "none"), ("nomerges", "2"), ("add_random", "0")):
        (queue / key).write_text(value)


@contextmanager
def unprobed() -> Iterator[None]:
    """Keep udev from probing disks while the context is entered; it catches up afterwards.

    It probes a disk after each program that had it open for writing. For a SCSI disk that takes a dozen
    programs (sg_inq, blkid), which would run beside the next measurement.
    """
    run("udevadm", "settle")
    run("udevadm", "control", "--stop-exec-queue")
    try:
        yield
    finally:
        run("udevadm", "control", "--start-exec-queue")


def missing(names: Iterable[str]) -> list[str]:
    """Return the programs that these peers need and that are not installed."""
    needed = {"fio": 1, **{program: 1 for name in names for program in NEEDED.get(name, ())}}
    return [program for program in needed if shutil.which(program) is None]
