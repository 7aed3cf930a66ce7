"""Call stacks of the ways that pass several processes and threads: a new LUN, and the death of an engine.

``./dev vm -- .venv/bin/python -m tests.bench.vm.stacks`` prints the counts of ARCHITECTURE.md, with
``--list`` the functions too. Each way has checkpoints, one on every thread that it passes. A count is the
functions of the package that are on the stack when a checkpoint is called, over all checkpoints. Functions
that have returned by then, such as those that parse a document, are not counted.
"""

import argparse
import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Final

from tests.polling import wait_until
from tests.vm.daemon import Service, vscsihba

HBA: Final = 0
_LOG: Final = "VSCSIHBA_STACKS"

WAYS: Final = {
    "`apply` of one LUN, to the first write to configfs": (
        ("vscsihba/control/client.py: _send", "vscsihba/cli/main.py: main"),
        ("vscsihba/control/server.py: ControlServer._begin", ""),
        ("vscsihba/control/client.py: _send", "vscsihba/daemon/hba_engines.py: HbaEngines.add"),
        ("configfs/lio.py: create_backstore", "vscsihba/engine/target.py: Target.add"),
    ),
    "`kill -9` of an engine, to the successor serving": (
        (
            "vscsihba/engine/owning/balancer.py: Balancer.changed",
            "vscsihba/engine/owning/peers.py: Peers._watch",
        ),
        ("vscsihba/threads.py: start", "vscsihba/engine/owning/balancer.py: Balancer._run"),
        ("vscsihba/tcmu/ring.py: Ring.recover", "vscsihba/engine/owning/opening.py: Opening.run"),
        ("vscsihba/engine/serving/pump.py: Pump.add", "vscsihba/engine/serving/lun.py: ServedLun._begin"),
    ),
}
"""The checkpoints of each way: a function, and another one that must be on its stack."""

HOOK: Final = """
import json, os, sys, threading
CHECKPOINTS, ROOT, LOG = {checkpoints!r}, {root!r}, {log!r}

def name(code):
    path = os.path.realpath(code.co_filename)
    inside = path.startswith(ROOT) and "/.venv/" not in path
    return path.removeprefix(ROOT) + ": " + code.co_qualname if inside else None

def profile(frame, event, _argument):
    if event != "call" or frame.f_code.co_name not in CHECKPOINTS:
        return
    stack = []
    while frame is not None:
        if (function := name(frame.f_code)) is not None and not function.startswith("tests/"):
            stack.append(function)
        frame = frame.f_back
    if stack and stack[0].rpartition(".")[2].rpartition(" ")[2] in CHECKPOINTS:
        fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, json.dumps([os.getpid(), stack]).encode() + b"\\n")
        os.close(fd)

threading.setprofile(profile)
sys.setprofile(profile)
"""
"""A sitecustomize.py that logs the stack of each call of a checkpoint, in every process."""


def hook(folder: Path, log: Path) -> None:
    """Have processes that are started from now on log their stacks."""
    names = {function.rpartition(" ")[2].rpartition(".")[2] for way in WAYS.values() for function, _ in way}
    root = f"{Path(__file__).resolve().parents[3]}/"
    (folder / "sitecustomize.py").write_text(HOOK.format(checkpoints=names, root=root, log=str(log)))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def run(folder: Path) -> None:
    """Add one LUN with two engines, and kill its owner."""
    image = folder / "disk.img"
    image.write_bytes(bytes(1 << 20))
    document = {
        "version": 1,
        "backstores": {"disk": str(image)},
        "hbas": [{"id": HBA, "engines": 2, "luns": [{"lun": 0, "backstore": "disk"}]}],
    }
    service = Service(folder)
    service.start()
    try:
        vscsihba("apply", service.document(document))
        first = wait_until(lambda: owner(service), "an owner")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: owner(service) not in (None, first), "a successor")
        vscsihba("clear", "--all", "--force")
    finally:
        assert service.process is not None
        service.process.terminate()
        service.process.wait(60)


def owner(service: Service) -> int | None:
    """Return the pid of the engine that serves the LUN."""
    found: int | None = service.lun(HBA, 0)["engine"]
    return found


def stacks(log: Path) -> dict[str, list[list[str]]]:
    """Return the first stack of each checkpoint, by way."""
    calls: list[list[str]] = [json.loads(line)[1] for line in log.read_text().splitlines()]
    return {
        way: [_first(calls, *checkpoint) for checkpoint in checkpoints] for way, checkpoints in WAYS.items()
    }


def _first(calls: list[list[str]], function: str, caller: str) -> list[str]:
    stacks = [stack for stack in calls if stack[0] == function]
    for stack in stacks:
        if not caller or caller in stack:
            return stack
    raise AssertionError(f"no call of {function} below {caller}, but {stacks}")


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.vm.stacks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the functions as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "hook").mkdir()
        hook(folder / "hook", log := folder / "stacks")
        run(folder)
        for way, found in stacks(log).items():
            functions = dict.fromkeys(function for stack in found for function in reversed(stack))
            files = {function.partition(":")[0] for function in functions}
            print(f"{way}: {len(functions)} functions, {len(files)} files")
            for function in functions if options.list else ():
                print(f"    {function}")


if __name__ == "__main__":
    main()
