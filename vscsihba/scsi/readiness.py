"""Readiness of a medium: presence, power condition, and a format or sanitize that runs or has failed.

Knows which state of the medium a command requires, nothing else of commands.
"""

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

from vscsihba.scsi.asc import Asc
from vscsihba.scsi.command import Command, Data, MediumAccess
from vscsihba.scsi.sense import ProgressIndication, Sense, SenseKey


class PowerCondition(IntEnum):
    """Power conditions (SPC-5 "Power conditions"); "stopped" is not supported."""

    ACTIVE = 1
    IDLE = 2
    STANDBY = 3


_POWER_ASC = {
    PowerCondition.IDLE: Asc.IDLE_CONDITION_ACTIVATED_BY_COMMAND,
    PowerCondition.STANDBY: Asc.STANDBY_CONDITION_ACTIVATED_BY_COMMAND,
}


@dataclass(slots=True)
class Erasure:
    """A FORMAT UNIT or SANITIZE.

    Attributes:
        running: Additional sense code while it runs.
        failure: Additional sense code after it has failed.
        total: Bytes to erase.
        done: Bytes erased.
        failed: It has ended, and failed.
        may_exit: EXIT FAILURE MODE may end the failure (SANITIZE with AUSE=1).
    """

    running: Asc
    failure: Asc
    total: int
    done: int = 0
    failed: bool = False
    may_exit: bool = False

    @property
    def sense(self) -> Sense:
        """The condition that other commands end with."""
        if self.failed:
            return Sense(SenseKey.MEDIUM_ERROR, self.failure)
        indication = min(self.done * 0x10000 // max(self.total, 1), 0xFFFF)
        return Sense(SenseKey.NOT_READY, self.running, specific=ProgressIndication(indication))


class Readiness:
    """The readiness of one medium.

    Args:
        erasure: One that has failed under an earlier engine.

    Attributes:
        present: The medium is loaded.
        removal_prevented: It is locked (PREVENT ALLOW MEDIUM REMOVAL).
        power: Power condition.
        transitions: Number of changes to each power condition.
        erasure: A format or sanitize that runs, or has failed.
    """

    def __init__(self, erasure: Erasure | None = None) -> None:
        self.present = True
        self.removal_prevented = False
        self.power = PowerCondition.ACTIVE
        self.transitions = Counter[PowerCondition]()
        self.erasure = erasure

    @property
    def clear(self) -> bool:
        """A plain READ or WRITE can run, and changes nothing here."""
        return self.present and self.erasure is None and self.power is PowerCondition.ACTIVE

    def obstacle(self, command: Command) -> Sense | None:
        """Return why `command` cannot be run now, None if it can.

        After a failed erasure, only another erasure can run.
        """
        if self.erasure is not None and not command.allowed_during_format:
            renews = command.medium is MediumAccess.REPLACED and self.erasure.failed
            if not renews:
                return self.erasure.sense
        if not self.present and command.medium is not MediumAccess.UNTOUCHED:
            return Sense(SenseKey.NOT_READY, Asc.MEDIUM_NOT_PRESENT)
        return None

    def wake(self, command: Command) -> None:
        """Become active if `command` moves data of the medium (SPC-5 "Power condition state machine")."""
        if command.medium is not MediumAccess.UNTOUCHED and command.data is not Data.NONE:
            self.enter(PowerCondition.ACTIVE)

    def enter(self, condition: PowerCondition) -> None:
        """Change the power condition."""
        if condition is not self.power:
            self.power = condition
            self.transitions[condition] += 1

    def report(self) -> Sense | None:
        """Return the pollable sense data of REQUEST SENSE (SPC-5 "Pollable sense data")."""
        if self.erasure is not None:
            return self.erasure.sense
        if self.power in _POWER_ASC:
            return Sense(SenseKey.NO_SENSE, _POWER_ASC[self.power])
        return None

    def reset(self) -> None:
        """Reset the settings of initiators; an erasure goes on."""
        self.removal_prevented = False
        self.enter(PowerCondition.ACTIVE)
