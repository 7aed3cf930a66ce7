"""Engine processes as the service sees them: started, adopted, controlled, ended, killed."""

import errno
import json
import os
import select
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from vscsihba.daemon import engine as engine_module
from vscsihba.daemon.engine import Engine
from vscsihba.engine.owning.locks import run_directory
from vscsihba.errors import HostError, UsageError

STUB = """#!{python}
import json, os, signal, sys, threading
sys.path[:0] = {path!r}
from pathlib import Path
from vscsihba.control import ControlServer

module, hba = sys.argv[2:]
assert sys.argv[1:3] == ["-m", "vscsihba.engine"]
said = json.loads({said!r})
if said:
    print(json.dumps(said), flush=True)
    sys.exit(1)
ended = threading.Event()
status = lambda: {{"hba": int(hba), "pid": os.getpid(), "by": {by!r}, "since": 5.0, "luns": []}}
verbs = {{"status": status, "end": ended.set, "session": lambda: os.getsid(0)}}
where = Path({run!r}) / f"hba{{hba}}" / f"engine-{{os.getpid()}}.control"
with ControlServer(where, verbs):
    print(json.dumps({{"ready": True}}), flush=True)
    ended.wait()
"""


class Programs:
    """Replaces the program of an engine."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = folder / "run"
        self._path = folder / "python"
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(engine_module, "run_directory", partial(run_directory, run=self.run))
        self._python = sys.executable

    def be(self, *, said: object = None, by: str = "vscsihba") -> None:
        text = STUB.format(
            python=self._python, path=sys.path, run=str(self.run), said=json.dumps(said), by=by
        )
        self._path.write_text(text)
        self._path.chmod(stat.S_IRWXU)
        self._monkeypatch.setattr(engine_module.sys, "executable", str(self._path))  # type: ignore[attr-defined]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    made = Programs(tmp_path, monkeypatch)
    made.be()
    return made


@pytest.fixture
def engine(programs: Programs) -> Iterator[Engine]:
    made = Engine.start(3)
    yield made
    if made.alive:
        made.end()


def test_an_engine_is_a_session_of_its_own(engine: Engine) -> None:
    assert engine.alive
    assert engine.status()["pid"] == engine.pid
    assert engine.ask("session", {}) == engine.pid != os.getsid(0)


def test_an_engine_that_is_asked_to_end_does(engine: Engine, programs: Programs) -> None:
    engine.end()
    assert list((programs.run / "hba3").iterdir()) == []


def test_an_engine_that_is_killed_is_noticed(engine: Engine, programs: Programs) -> None:
    engine.kill()
    assert select.select([engine], [], [], 60)[0]
    assert not engine.alive
    with pytest.raises(HostError):
        engine.ask("status", {})
    engine.kill()
    engine.close()
    assert list((programs.run / "hba3").iterdir()) == []


def test_engines_are_found_again_and_those_of_others_are_not(programs: Programs) -> None:
    ours = Engine.start(3)
    programs.be(by="vscsitarget")
    theirs = Engine.start(3)
    (programs.run / "hba3" / "engine-1.control").touch()
    (found,) = Engine.find(3, programs.run)
    assert (found.pid, found.since, found.hba_id) == (ours.pid, 5.0, 3)
    assert not (programs.run / "hba3" / "engine-1.control").exists(), "nobody is behind it"
    assert Engine.find(4, programs.run) == []
    found.end()
    ours.close()
    theirs.end()


@pytest.mark.parametrize(("code", "kind"), [(1, HostError), (2, UsageError)])
def test_the_error_of_a_failed_start_is_reported(
    programs: Programs, code: int, kind: type[Exception]
) -> None:
    programs.be(said={"ready": False, "message": "no kernel", "cure": "get one", "exit_code": code})
    with pytest.raises(kind, match="no kernel; get one"):
        Engine.start(3)


def test_an_engine_that_ends_without_a_report_is_an_error(programs: Programs) -> None:
    programs.be()
    (programs.run.parent / "python").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(HostError, match="a new engine ended before it was ready; the service's log says why"):
        Engine.start(3)


def test_a_process_that_is_not_there_cannot_be_watched() -> None:
    with pytest.raises(HostError, match="engine 999999999: "):
        Engine(3, 999999999, 0.0)


def test_a_process_that_cannot_be_watched_is_ended(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def refuse(pid: int) -> int:
        begun.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(HostError, match="Too many open files"):
        Engine.start(3)
    (pid,) = begun
    assert not Path(f"/proc/{pid}").exists()


def test_the_reason_of_a_missing_process_is_reported(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_words: object, **_options: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(HostError, match="an engine cannot be started: Resource temporarily unavailable"):
        Engine.start(3)


def test_any_first_line_of_an_engine_is_handled(programs: Programs) -> None:
    for said in ([1], "x", {"redy": 1}):
        programs.be(said=said)
        with pytest.raises(HostError, match=r"a new engine answered .* instead of its start result"):
            Engine.start(3)
