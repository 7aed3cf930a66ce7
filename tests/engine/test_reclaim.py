"""Protection from memory reclaim, observed in a protected process."""

import json
import os
import subprocess
import sys

import pytest

PROBE = """
import ctypes, json, logging, sys, threading
logging.basicConfig(level=logging.INFO)
from vscsihba.engine import privileges, reclaim
{before}
reclaim.protect()
privileges.drop()
found = {{}}
def look():
    libc = ctypes.CDLL(None, use_errno=True)
    found["flusher"] = libc.prctl(58, 0, 0, 0, 0)  # PR_GET_IO_FLUSHER, of this thread
    for line in open("/proc/self/status"):
        key, _, value = line.partition(":")
        found[key] = value.strip()
thread = threading.Thread(target=look)
thread.start()
thread.join()
flags = int(open("/proc/thread-self/stat").read().rpartition(")")[2].split()[6])
found["noio"] = bool(flags & 0x00080000)  # PF_MEMALLOC_NOIO
print(json.dumps(found))
"""


def probe(before: str = "") -> tuple[dict[str, object], str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(before=before)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    probed: dict[str, object] = json.loads(done.stdout)
    return probed, done.stderr


def capable(number: int) -> bool:
    with open("/proc/self/status") as status:  # noqa: PTH123
        lines = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    return bool(int(lines["CapEff"], 16) >> number & 1)


@pytest.mark.skipif(not capable(24), reason="needs CAP_SYS_RESOURCE")
def test_its_threads_free_memory_without_waiting_for_its_disks() -> None:
    probed, log = probe()
    if "no PR_SET_IO_FLUSHER" in log:
        pytest.skip("the kernel knows no PR_SET_IO_FLUSHER, or hides it")
    assert probed["noio"]


@pytest.mark.skipif(not capable(14), reason="needs CAP_IPC_LOCK")
def test_its_pages_are_not_swapped_out() -> None:
    probed, log = probe()
    if "pages may be swapped out" in log:
        pytest.skip("the kernel does not lock all of a process")
    assert int(str(probed["VmLck"]).split()[0]) > 1000


def test_without_privileges_it_says_so_and_goes_on() -> None:
    before = (
        "import resource; resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536)); "
        "privileges.KEPT.clear(); privileges.drop()"
    )
    probed, log = probe(before)
    assert "no PR_SET_IO_FLUSHER: Operation not permitted" in log
    assert "pages may be swapped out: RLIMIT_MEMLOCK is limited" in log
    assert not probed["noio"]
