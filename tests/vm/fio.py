"""fio as a witness: whatever it has written must be there when it reads it back."""

import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.vm.target import Lun


class Fio:
    """fio with verification, again and again, until it is told to finish.

    Args:
        luns: Disks to write to, or files.
        flushing: Flush after every eighth write.
        size: Bytes of each run on each of them, as for fio: less for storage on which each write takes long.
    """

    def __init__(self, luns: Sequence[Lun | Path], *, flushing: bool = False, size: str = "4m") -> None:
        paths = [lun if isinstance(lun, Path) else lun.node for lun in luns]
        jobs = [word for path in paths for word in (f"--name={path.name}", f"--filename={path}")]
        self._command = [
            "fio",
            "--rw=randwrite",
            "--bs=4k",
            "--iodepth=16",
            "--ioengine=libaio",
            "--direct=1",
            f"--size={size}",
            "--loops=2",
            "--verify=crc32c",
            "--verify_backlog=128",
            "--verify_fatal=1",
            "--group_reporting",
            *(["--fdatasync=8"] if flushing else []),
            "--output-format=json",
            *jobs,
        ]
        self._stop = threading.Event()
        self._runs: list[tuple[int, str]] = []
        self._thread = threading.Thread(target=self._repeat)
        self._thread.start()

    def _repeat(self) -> None:
        while not self._stop.is_set() and all(code == 0 for code, _ in self._runs):
            done = subprocess.run(
                self._command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
            )
            self._runs.append((done.returncode, done.stdout + done.stderr))

    def finish(self) -> float:
        """Let the last run end; each must have verified. Return the longest wait of an I/O in seconds."""
        self._stop.set()
        self._thread.join(900)
        assert self._runs
        assert not self._thread.is_alive()
        longest = 0.0
        for code, output in self._runs:
            assert code == 0, output
            for job in json.loads(output[output.index("{") :])["jobs"]:
                assert job["error"] == 0, output
                longest = max(longest, *(job[way]["clat_ns"]["max"] / 1e9 for way in ("read", "write")))
        return longest
