"""``vscsihba trace`` as a capture interface of Wireshark: the questions of extcap(4), and their answers.

Wireshark runs every program of its extcap folder, learns which interfaces it has, and starts it with a pipe
to write the capture to. Knows that protocol; the capture is made by the command ``trace``.
"""

import argparse
import stat
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from vscsihba.capture.envelope import LINK_TYPE
from vscsihba.errors import HostError, UsageError

INTERFACE: Final = "vscsihba"

_SNAPLEN: Final = "4096"

_SCRIPT: Final = """\
#!/bin/sh
# Makes "{interface}" an interface in Wireshark: shows the SCSI commands of virtual disks.
exec {program} trace "$@"
"""


def is_asked(arguments: Sequence[str]) -> bool:
    """Return whether a command line is one of Wireshark's."""
    return any(word.startswith("--extcap-") for word in arguments)


def trace_arguments(arguments: Sequence[str]) -> list[str] | None:
    """Answer a question of Wireshark, or return the arguments of the trace that it wants.

    Args:
        arguments: The command line.

    Raises:
        UsageError: A question is not complete.
    """
    made = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--extcap-interfaces", "--extcap-dlts", "--extcap-config", "--capture"):
        made.add_argument(flag, action="store_true")
    for option in ("--extcap-interface", "--extcap-version", "--extcap-capture-filter", "--fifo", "--disks"):
        made.add_argument(option, nargs="?", default="")
    made.add_argument("--snaplen", default=_SNAPLEN)
    asked, _others = made.parse_known_args(list(arguments))
    if asked.extcap_interfaces:
        print(f"extcap {{version={version('vscsihba')}}}")
        print(f"interface {{value={INTERFACE}}}{{display=SCSI commands of virtual disks}}")
    elif asked.extcap_dlts:
        print(f"dlt {{number={LINK_TYPE}}}{{name=WIRESHARK_UPPER_PDU}}{{display=SCSI commands, as iSCSI}}")
    elif asked.extcap_config:
        print(
            "arg {number=0}{call=--disks}{display=Disks}{type=string}"
            "{tooltip=As hba0/lun1, separated by blanks; empty for all disks}"
        )
        print(
            f"arg {{number=1}}{{call=--snaplen}}{{display=Bytes of data of each command}}{{type=string}}"
            f"{{default={_SNAPLEN}}}"
        )
    elif asked.capture and asked.fifo:
        return ["--pcap", asked.fifo, "--snaplen", asked.snaplen, "--follow", *(asked.disks or "").split()]
    else:
        raise UsageError("not a question of Wireshark", cure='see "vscsihba trace --help"')
    return None


def install(program: str, folder: Path) -> Path:
    """Write the script that Wireshark runs.

    Args:
        program: Path of ``vscsihba``.
        folder: Its folder, which exists: "tshark -G folders" names it.

    Returns:
        The script.

    Raises:
        HostError: It cannot be written.
    """
    path = folder / INTERFACE
    try:
        path.write_text(_SCRIPT.format(interface=INTERFACE, program=program))
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    return path
