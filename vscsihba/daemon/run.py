"""The service as a process: the only one on its machine, ready when its disks are, watched by systemd.

``vscsihba daemon`` runs it in the foreground, and so does systemd. Its engines keep running when it ends;
only when the machine shuts down does it end them too, so that files are closed in time.
"""

import logging
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from vscsihba import configfs
from vscsihba.control import ControlServer, root_or_group
from vscsihba.control.peer import group_id
from vscsihba.daemon.calls import SOCKET
from vscsihba.daemon.known_devices import check_devices
from vscsihba.daemon.notify import Notifier
from vscsihba.daemon.service import Service
from vscsihba.daemon.state import State
from vscsihba.daemon.supervisor import Supervisor
from vscsihba.engine.descriptors import raise_limit
from vscsihba.errors import VscsihbaError
from vscsihba.stop_signal import StopSignal
from vscsihba.threads import VitalThread, repeat, start
from vscsihba.units import counted

log = logging.getLogger(__name__)

_RETRY: Final = 10.0
"""Seconds between retries of restoring and recording."""

_TARGETCTL: Final = ("rtslib-fb-targetctl.service", "target.service")
"""LIO's own service: on Debian, and elsewhere."""
_UNITS: Final = Path("/run/systemd/system")
"""Where drop-ins of units last until the machine is off."""

GROUP: Final = "vscsihba"
"""Members of this group may use the control socket, if the group exists."""


def serve(state: State | None = None) -> None:
    """Run the machine's service until a signal ends it.

    Args:
        state: The documents on disk; by default those of the machine.

    Raises:
        InUseError: Another service runs.
        HostError: This machine lacks something.
    """
    logging.getLogger("vscsihba").setLevel(logging.INFO)
    raise_limit()
    state = state or State()
    stop_signal = StopSignal()
    notifier = Notifier()
    with state.held():
        configfs.prepare()
        supervisor = Supervisor(
            check=lambda request: check_devices(state.devices_to_check(), request.document)
        )
        service = Service(supervisor, state)
        try:
            service.resume()
            with (
                _retrying(service),
                ControlServer(SOCKET, service.verbs(), allowed=root_or_group(GROUP), group=group_id(GROUP)),
            ):
                notifier.ready(_summary(service))
                log.info("ready: %s", _summary(service))
                while not stop_signal.arrives_within(notifier.interval):
                    notifier.alive(_summary(service))
                notifier.stopping()
            if _machine_goes_down():
                take_all_down(service)
        finally:
            supervisor.close()


@contextmanager
def _retrying(service: Service, seconds: float = _RETRY) -> Iterator[None]:
    """Call `Service.retry` every `seconds` while the context is entered."""
    ended = threading.Event()

    def step() -> bool:
        if ended.wait(seconds):
            return False
        service.retry()
        return True

    thread = VitalThread(partial(repeat, step, "retrying"), "retry")
    start(thread)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _summary(service: Service) -> str:
    document = service.document
    luns = sum(len(hba.luns) for hba in document.hbas)
    return f"{counted(len(document.hbas), 'HBA')}, {counted(luns, 'LUN')}"


def _machine_goes_down() -> bool:
    """Return whether this machine is powering off or rebooting (systemctl(1), is-system-running)."""
    try:
        done = subprocess.run(
            ["systemctl", "is-system-running"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):  # another init
        return False
    return done.stdout.strip() == "stopping"


def take_all_down(service: Service, units: Path = _UNITS) -> None:
    """Remove all disks, those in use as soon as they are free; the saved document is kept."""
    served = False
    service.end_exports()
    for hba in service.document.hbas:
        try:
            service.clear(lambda _step: None, hba.id)
        except VscsihbaError as error:
            log.warning("HBA %d is served until its disks are free: %s", hba.id, error)
            service.end_when_free(hba.id)
            served = True
    if served:
        _keep_targets(units)


def _keep_targets(units: Path) -> None:
    """Keep LIO's own service, which stops after this one, from removing all targets (``targetctl clear``)."""
    try:
        for unit in _TARGETCTL:
            folder = units / f"{unit}.d"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "vscsihba.conf").write_text("[Service]\nExecStop=\n")
        subprocess.run(["systemctl", "daemon-reload"], check=True, timeout=30, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("LIO's own service may remove disks that are in use: %s", error)
