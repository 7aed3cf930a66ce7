"""A service without a kernel: the daemon's verbs on a real control socket, and documents for disks.

Plans with `vscsihba.config.changes`, as the real one does; what it applies is only remembered.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vscsihba.config.changes import Changes, changes
from vscsihba.config.dump import builtins, dump
from vscsihba.config.load import read, warnings
from vscsihba.config.model import Document
from vscsihba.config.pruning import Prune
from vscsihba.config.sizes import size_of
from vscsihba.control.server import ControlServer
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.options import did_you_mean
from vscsihba.stats import LunStats

_STATISTICS = ("statistics", "clear_statistics")

OTHERS: list[dict[str, object]] = [
    {"kind": "backstore", "name": "fileio_0/theirs", "text": "fileio, 1 MiB, behind iqn.2003-01.org:t1 LUN 0"}
]


class FakeService:
    """A running service, as far as its socket shows.

    Attributes:
        running: The running document.
        busy: Disks that are in use, by HBA and LUN: taking them away needs force.
        socket: Where it is asked.
        refuse: The error of every verb that changes something.
    """

    def __init__(self, folder: Path) -> None:
        self.running = Document()
        self.busy: set[tuple[int, int]] = set()
        self.refuse: HostError | None = None
        self.others = OTHERS
        self.sessions: list[dict[str, object]] = []
        self.calls: list[str] = []
        self.socket = folder / "control.sock"
        self._saved = folder / "config.json"

    def verbs(self) -> dict[str, Callable[..., object]]:
        return {
            name: getattr(self, name)
            for name in ("plan", "apply", "show", "status", "save", "clear", "resize", "act", *_STATISTICS)
        }

    def statistics(self) -> object:
        """Say that every LUN has read 1,000 blocks of 4 KiB in 12 us each, and that one of them failed."""
        self.calls.append("statistics")
        return [
            {
                "hba": hba.id,
                "lun": lun.lun,
                "engine": 900,
                "counters": LunStats(reads=1000, read_bytes=4096000, others=7, errors=1).snapshot(),
                "latencies": {"reads": [(302, 1000)], "writes": [], "others": [(700, 8)]},
            }
            for hba in self.running.hbas
            for lun in hba.luns
        ]

    def clear_statistics(self, hba: int, lun: int) -> None:
        self.calls.append(f"clear_statistics {hba}/{lun}")

    def plan(self, document: dict[str, object], prune: Prune) -> object:
        wanted, found = self._changes(document, prune)
        return {"changes": [step.as_json() for step in found], "warnings": warnings(wanted)}

    def apply(
        self,
        document: dict[str, object],
        prune: Prune,
        progress: Callable[[object], None],
        *,
        replace: bool,
        force: bool,
        seen: dict[str, object] | None,
    ) -> object:
        wanted, found = self._changes(document, prune)
        if seen is not None and read(seen, Path("/")) != self.running:
            raise HostError(
                "another program has changed the configuration meanwhile", cure="check it, and try again"
            )
        if found.replacing and not replace:
            raise UsageError(
                f"{found.replacing[0].text}: not possible while the disk is attached", cure="use --replace"
            )
        for step in found:
            place = (getattr(step, "hba", None), getattr(getattr(step, "lun", None), "lun", None))
            if step.disturbs and place in self.busy and not force:
                raise HostError(
                    f"LUN {place[1]} of HBA {place[0]} is in use: /dev/sda is mounted on /mnt",
                    cure="unmount it, or use --force",
                )
        self._refuse()
        for number, step in enumerate(found, 1):
            progress({"step": number, "of": len(found), "text": step.text})
        self.running = found.target
        return {"changes": [step.as_json() for step in found], "warnings": warnings(wanted), "done": True}

    def show(self) -> object:
        return builtins(self.running)

    def status(self) -> object:
        return {
            "problems": [],
            "daemon": {"pid": 800, "since": time.time() - 7384},
            "hbas": [
                {
                    "id": hba.id,
                    "engines": [
                        {"pid": 900 + hba.id, "state": "running", "since": time.time() - 60}
                        for _ in range(hba.engines)
                    ],
                    "luns": [self._lun(hba.id, lun.lun) for lun in hba.luns],
                }
                for hba in self.running.hbas
            ],
            "exports": [
                {
                    "name": export.name,
                    "transport": export.transport,
                    "portals": list(export.portals),
                    "state": "running",
                    "luns": [
                        {
                            "lun": lun.lun,
                            "backstore": lun.backstore,
                            "read_only": export.read_only(lun),
                            "state": "running",
                            "access_state": lun.state,
                        }
                        for lun in export.luns
                    ],
                    "sessions": self.sessions,
                }
                for export in self.running.exports
            ],
            "others": self.others,
        }

    def save(self, path: str | None, *, force: bool) -> object:
        target = Path(path) if path is not None else self._saved
        if self.running.empty and target.exists() and not force:
            raise UsageError(f"{target} would be overwritten by an empty document", cure="use --force")
        target.write_text(dump(self.running))
        return {"path": str(target)}

    def clear(self, hba: int | None, *, force: bool) -> object:
        self._refuse()
        kept = tuple(each for each in self.running.hbas if hba not in (None, each.id))
        shown = {lun.backstore for each in kept for lun in each.luns}
        removed = [f"remove HBA {each.id}" for each in self.running.hbas if each not in kept]
        if hba is not None and not removed:
            raise UsageError(f"there is no HBA {hba}", cure='see "vscsihba status"')
        if self.busy and not force:
            raise HostError("LUN 0 of HBA 0 is in use: /dev/sda is mounted on /mnt", cure="use --force")
        backstores = {key: stack for key, stack in self.running.backstores.items() if key in shown}
        self.running = Document(backstores=backstores, hbas=kept)
        return {"removed": removed}

    def resize(self, backstore: str, size: int) -> object:
        document = json.loads(json.dumps(builtins(self.running)))
        found = document["backstores"]
        if backstore not in found:
            raise UsageError(f"there is no backstore {backstore!r}", cure=did_you_mean(backstore, found))
        found[backstore]["size"] = size
        _, steps = self._changes(document, "none")
        self._refuse()
        self.running = steps.target
        return {"backstore": backstore, "size": size}

    def act(
        self, hba: int, lun: int, layer: str, action: str, arguments: dict[str, object], *, force: bool
    ) -> object:
        self.calls.append(f"{hba}/{lun} {layer}.{action} {arguments}")
        return {}

    def _changes(self, document: dict[str, object], prune: Prune) -> tuple[Document, Changes]:
        wanted = read(document, Path("/"))
        return wanted, changes(self.running, wanted, prune=prune)

    def _refuse(self) -> None:
        if self.refuse is not None:
            raise self.refuse

    def _lun(self, hba_id: int, number: int) -> object:
        hba = self.running.hba(hba_id)
        assert hba is not None
        lun = hba.lun(number)
        assert lun is not None
        stack = self.running.backstores[lun.backstore]
        return {
            "lun": lun.lun,
            "backstore": lun.backstore,
            "local": lun.local,
            "device": f"/dev/sd{chr(ord('a') + number)}" if lun.local else None,
            "by_id": f"/dev/disk/by-id/scsi-3000000000000000{number}",
            "size": size_of(stack) or 1 << 20,
            "stack": f"{stack['handler']} {stack.get('path', '')}".strip(),
            "engine": 900 + hba_id,
            "iops": 120.0,
            "state": "running",
            "read_only": lun.read_only,
        }


@contextmanager
def serving(folder: Path) -> Iterator[tuple[FakeService, Path]]:
    """Run a fake service on a socket in `folder` while the context is entered."""
    service = FakeService(folder)
    with ControlServer(service.socket, service.verbs()):
        yield service, service.socket
