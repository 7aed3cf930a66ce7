"""The record of the tests before a reboot for those after it: a JSON file that outlives a boot."""

import json
from pathlib import Path
from typing import Any

PATH = Path("/var/lib/vscsihba-tests/record.json")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def leave(**facts: object) -> None:
    """Keep facts, and which boot they are of."""
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps({**facts, "boot_id": BOOT_ID.read_text()}))


def found() -> dict[str, Any]:
    """Return the record, and check that the machine has rebooted since."""
    facts: dict[str, Any] = json.loads(PATH.read_text())
    assert facts["boot_id"] != BOOT_ID.read_text(), "the machine was not booted again"
    return facts
