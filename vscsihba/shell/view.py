"""One state of the service: the running document, and the status of everything in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vscsihba.config.load import read
from vscsihba.config.model import Document, Hba, Lun, StackDocument
from vscsihba.daemon.calls import Daemon, HbaStatus, LunStatus, Status


@dataclass(frozen=True, slots=True)
class View:
    """One state of the service.

    Attributes:
        document: Running document.
        status: State of HBAs and LUNs; may have more or fewer of them than the document.
    """

    document: Document
    status: Status

    @classmethod
    def of(cls, daemon: Daemon) -> "View":
        """Ask the service.

        Raises:
            HostError: The service does not run, or does not answer.
        """
        return cls(read(daemon.show(), Path("/")), daemon.status())

    def hba_ids(self) -> list[int]:
        """Return the ids of all HBAs in the document or the kernel."""
        return sorted({hba.id for hba in self.document.hbas} | {hba["id"] for hba in self.status["hbas"]})

    def luns(self, hba_id: int) -> list[int]:
        """Return the numbers of all LUNs of an HBA in the document or the kernel."""
        wanted, status = self.document.hba(hba_id), self.hba_status(hba_id)
        numbers = {lun.lun for lun in wanted.luns} if wanted is not None else set()
        return sorted(numbers | ({lun["lun"] for lun in status["luns"]} if status is not None else set()))

    def hba(self, hba_id: int) -> Hba | None:
        """Return an HBA of the document."""
        return self.document.hba(hba_id)

    def lun(self, hba_id: int, number: int) -> Lun | None:
        """Return a LUN of the document."""
        hba = self.document.hba(hba_id)
        return None if hba is None else hba.lun(number)

    def hba_status(self, hba_id: int) -> HbaStatus | None:
        """Return the status of an HBA."""
        return next((hba for hba in self.status["hbas"] if hba["id"] == hba_id), None)

    def lun_status(self, hba_id: int, number: int) -> LunStatus | None:
        """Return the status of a LUN."""
        hba = self.hba_status(hba_id)
        return None if hba is None else next((lun for lun in hba["luns"] if lun["lun"] == number), None)

    def backstores_of(self, folder: str) -> dict[str, StackDocument]:
        """Return the backstores whose topmost layer is shown under a name."""
        return {name: stack for name, stack in self.document.backstores.items() if folder_of(stack) == folder}

    def all_luns(self) -> Iterator[tuple[int, LunStatus]]:
        """Yield the status of every LUN, with the id of its HBA."""
        for hba in self.status["hbas"]:
            for lun in hba["luns"]:
                yield hba["id"], lun

    @property
    def others(self) -> list[dict[str, Any]]:
        """Objects of other programs."""
        return self.status["others"]


def folder_of(stack: StackDocument) -> str:
    """Return the name under which backstores with this topmost layer are shown."""
    name = str(stack["handler"])
    if name.endswith(".py"):
        return Path(name).stem
    return name.rpartition(":")[2]
