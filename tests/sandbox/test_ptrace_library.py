"""The library that is preloaded into linux.uml."""

import ctypes
import shutil
from pathlib import Path

import pytest

from vscsihba.errors import SandboxError
from vscsihba.sandbox import ptrace_library

FLAGS = "processor\t: 0\nflags\t\t: fpu sse avx512f{}\n"


@pytest.mark.parametrize(
    ("more", "needed"), [("", False), (" amx_bf16 amx_tile", True), (" amx_tiles", False)]
)
def test_processors_with_amx_need_it(tmp_path: Path, more: str, needed: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(FLAGS.format(more))
    assert ptrace_library.is_needed(file) is needed


@pytest.mark.parametrize("compiler", ["gcc", "tcc"])
def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    monkeypatch.setattr(ptrace_library, "COMPILERS", (compiler,))
    made = ptrace_library.library(tmp_path)
    assert made is not None
    assert ctypes.CDLL(str(made)).ptrace
    monkeypatch.setattr(ptrace_library, "COMPILERS", ())
    assert ptrace_library.library(tmp_path) == made


@pytest.mark.parametrize("needed", [True, False])
def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: bool) -> None:
    monkeypatch.setattr(ptrace_library, "COMPILERS", ())
    monkeypatch.setattr(ptrace_library, "is_needed", lambda: needed)
    if not needed:
        assert ptrace_library.library(tmp_path) is None
        return
    with pytest.raises(SandboxError, match="no C compiler"):
        ptrace_library.library(tmp_path)


def test_a_compiler_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptrace_library, "COMPILERS", ("false",))
    with pytest.raises(SandboxError, match="false failed"):
        ptrace_library.library(tmp_path)
    assert list(tmp_path.iterdir()) == []
