"""The text of status, in real terminals of several widths: no row, path or state is ever broken."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_output import command, environment
from tests.terminal import Terminal
from vscsihba.cli.status_text import duration, status_lines
from vscsihba.control.server import ControlServer

WIDTHS = (80, 100, 160)

STATES = ("running, read-only", "running", "failing", "not served", "no SCSI device", "incomplete", "missing")

EVERY_COLUMN = ["HBA", "LUN", "BACKSTORE", "DEVICE", "SIZE", "STATE", "ENGINE", "IOPS", "STACK", "BY-ID"]

LONG = "/srv/virtual-disks/production/eu-west-1/database/primary/data-volume-0001.img"


def lun(number: int, **more: Any) -> dict[str, Any]:
    """Return a LUN of the service's answer."""
    return {
        "lun": number,
        "backstore": f"d{number}",
        "device": f"/dev/sd{chr(ord('a') + number % 26)}",
        "by_id": f"/dev/disk/by-id/scsi-36f1fc1d61bbfd7{number:02x}",
        "size": 2 << 30,
        "stack": f"file /srv/d{number}.img",
        "engine": 4730,
        "iops": 120.4,
        "state": "running",
        "read_only": False,
        **more,
    }


def hba(hba_id: int, *luns: Mapping[str, Any]) -> dict[str, Any]:
    engine = {"pid": 4730 + hba_id, "state": "running", "since": time.time() - 60}
    return {"id": hba_id, "engines": [engine], "luns": list(luns)}


def answer(*hbas: Mapping[str, Any]) -> dict[str, Any]:
    other = {
        "kind": "backstore",
        "name": "fileio_0/theirs",
        "text": "fileio, behind iqn.2003-01.org:t1",
    }
    daemon = {"pid": 4711, "since": time.time() - 7384}
    return {"problems": [], "daemon": daemon, "hbas": list(hbas), "others": [other]}


ANSWERS = {
    "one LUN": answer(hba(0, lun(0))),
    "three LUNs": answer(
        hba(
            0,
            lun(0),
            lun(1, stack="cow, mirror of 2", read_only=True),
            lun(2, state=f"failing: {LONG}: No such file or directory", device=None, size=None, by_id=None),
        )
    ),
    "long names": answer(
        hba(
            200,
            lun(0, backstore="database-production-eu-west-1", stack=f"encrypt, cache, file {LONG}"),
            lun(1, state="no SCSI device", device=None),
        )
    ),
    "many LUNs": answer(
        hba(0, *[lun(number, stack="cow, file /srv/golden/debian-12.img") for number in range(255)]),
        hba(7, lun(0, state="not served", engine=None), lun(1, state="missing"), lun(2, state="incomplete")),
        hba(9),
    ),
}


def in_a_terminal(status: Mapping[str, Any], width: int, folder: Path, *words: str) -> list[str]:
    """Return the lines that a terminal of some width shows."""
    with (
        ControlServer(folder / "control.sock", {"status": lambda: status}),
        Terminal(command(folder, "status", *words), environment(), columns=width) as terminal,
    ):
        assert terminal.end() == 0
    return terminal.text.splitlines()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ANSWERS)
def test_no_row_is_wider_than_the_terminal_and_nothing_in_it_is_broken(
    name: str, width: int, tmp_path: Path
) -> None:
    status = ANSWERS[name]
    lines = in_a_terminal(status, width, tmp_path)
    wide = [line for line in lines if len(line) > width]
    assert all(" " not in line for line in wide), "only a path alone on its line may be wider"
    luns = [lun for hba in status["hbas"] for lun in hba["luns"]]
    shown = [line for line in lines if re.match(r"\d+ +\d+ .*(GiB| failing)", line)]
    assert len(shown) == len(luns)
    for row, lun in zip(shown, luns, strict=True):
        state = lun["state"].partition(": ")[0]
        assert re.search(rf"(?<=  ){re.escape(state)}(, read-only)?( |$)", row), row
    paths = {LONG, "/srv/golden/debian-12.img", "/sys/block/sdX/device/delete"}
    paths |= {f"/srv/d{lun['lun']}.img" for lun in luns} | {lun["device"] for lun in luns}
    whole = {word.rstrip(':;,."') for line in lines for word in line.split() if word.startswith("/")}
    assert whole <= paths


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (80, "HBA LUN BACKSTORE DEVICE SIZE STATE ENGINE IOPS STACK"),
        (160, "HBA LUN BACKSTORE DEVICE SIZE STATE ENGINE IOPS STACK BY-ID"),
    ],
)
def test_a_simple_disk_is_shown_with_its_stack(width: int, headings: str, tmp_path: Path) -> None:
    lines = in_a_terminal(ANSWERS["one LUN"], width, tmp_path)
    assert lines[2].split() == headings.split()
    assert "file /srv/d0.img" in lines[3]
    assert not any("--wide" in line for line in lines)


def test_a_narrow_terminal_shows_the_names_of_the_layers_and_how_to_see_all(tmp_path: Path) -> None:
    lines = in_a_terminal(ANSWERS["three LUNs"], 80, tmp_path)
    assert lines[2].split() == ["HBA", "LUN", "BACKSTORE", "DEVICE", "SIZE", "STATE", "IOPS", "STACK"]
    assert [line.split()[-1] for line in lines[3:6]] == ["file", "mirror", "file"]
    assert '"vscsihba status --wide" shows every column' in lines


def test_wide_shows_every_column_in_a_narrow_terminal(tmp_path: Path) -> None:
    lines = in_a_terminal(ANSWERS["long names"], 80, tmp_path, "--wide")
    assert lines[2].split() == [
        "HBA",
        "LUN",
        "BACKSTORE",
        "DEVICE",
        "SIZE",
        "STATE",
        "ENGINE",
        "IOPS",
        "STACK",
        "BY-ID",
    ]
    assert f"encrypt, cache, file {LONG}  scsi-36f1fc1d61bbfd700" in lines[3]


def explained(*luns: Mapping[str, Any]) -> list[str]:
    """Return the sentences that explain states."""
    found: Any = answer(hba(3, *luns))
    return [line.plain for line in status_lines(found, 0.0, None) if line.plain.startswith("LUN ")]


@pytest.mark.parametrize("state", STATES[3:])
def test_every_state_but_running_is_explained_with_its_cure(state: str) -> None:
    (line,) = explained(lun(0), lun(1, state=state))
    assert line.startswith("LUN 1 of HBA 3: ")
    assert "vscsitarget" in line or "systemctl restart vscsihba" in line


def test_luns_of_one_state_share_its_explanation() -> None:
    bad = [lun(number, state="missing") for number in (0, 1, 2, 7)]
    (line,) = explained(*bad, lun(9))
    assert line.startswith("LUN 0-2, 7 of HBA 3: ")


def test_the_reason_of_a_failure_is_shown_below_the_table() -> None:
    assert explained(lun(0, state="failing: /a: no such file")) == [
        "LUN 0 of HBA 3: failing: /a: no such file"
    ]


def test_a_state_of_a_newer_service_needs_no_explanation() -> None:
    assert explained(lun(0, state="sleeping")) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-5, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7200, "2 h"), (90061, "1 d 1 h")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
