import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tests.handlers.samples import ONES
from vscsihba.errors import HostError, UsageError
from vscsihba.handlers import registry as registry_module
from vscsihba.handlers.base import Handler
from vscsihba.handlers.memory import MemoryHandler
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import build


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def ones(tmp_path: Path) -> Path:
    path = tmp_path / "ones.py"
    path.write_text(ONES)
    return path


def test_every_built_in_handler_is_what_its_name_says(registry: Registry) -> None:
    for name in registry.names():
        assert registry.get(name).name == name


def test_only_what_is_asked_for_is_imported() -> None:
    code = (
        "import sys; from vscsihba.handlers.stack import build; build({'handler': 'null', 'size': 512});"
        "sys.exit(any(f'vscsihba.handlers.{name}' in sys.modules for name in ('file', 'memory')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_name(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"no handler 'memroy'; did you mean \"memory\"\?"):
        registry.get("memroy")


def test_file_is_loaded_by_its_path(registry: Registry, ones: Path) -> None:
    with build({"handler": str(ones)}, registry=registry) as disk:
        room = bytearray(4)
        disk.read(0, [memoryview(room)])
        assert room == b"\1\1\1\1"
    assert "ones" in registry.names()
    assert registry.get("ones").name == "ones"


TWOS = ONES.replace("Ones", "Twos").replace('"ones"', '"twos"')


def test_one_of_several_in_a_file(registry: Registry, ones: Path) -> None:
    ones.write_text(ONES + TWOS)
    assert registry.get(f"{ones}:twos").name == "twos"
    with pytest.raises(UsageError, match=r"ones\.py defines no handler 'three'; known are: ones, twos"):
        registry.get(f"{ones}:three")


def test_the_lasting_name_is_found_by_another_registry(
    registry: Registry, ones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ones.parent)
    registry.load_file(Path("ones.py"))
    assert registry.lasting("memory", Path("/nowhere")) == "memory"
    for name in ("ones", "ones.py", "ones.py:ones"):
        lasting = registry.lasting(name, ones.parent)
        monkeypatch.chdir("/")
        assert Registry().get(lasting).name == "ones"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "defines no handler"),
        ("import vscsihba.nowhere", r"cannot be run: No module named"),
        ("def", r"cannot be run: invalid syntax"),
        (ONES.replace('"ones"', '"file"'), "belongs to a built-in handler"),
        ("1 / 0", r"cannot be run: ZeroDivisionError: division by zero"),
        (ONES + TWOS, r"several handlers: ones, twos; say which one: .*mine\.py:ones"),
    ],
)
def test_files_that_are_not_right(registry: Registry, tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(UsageError, match=message):
        registry.get(str(path))


def test_missing_file(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such Python file"):
        registry.get(str(tmp_path / "none.py"))


def install(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    point = EntryPoint(name="theirs", value=value, group=registry_module.GROUP)
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [point])


def test_installed_packages_offer_handlers(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "vscsihba.handlers.memory:MemoryHandler")
    assert "theirs" in registry.names()
    assert registry.get("theirs") is MemoryHandler


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere.at:all", "cannot be imported: No module named"),
        ("vscsihba.handlers.memory:None_", "cannot be imported"),
        ("vscsihba.handlers.memory:PAGE", "is not a handler"),
    ],
)
def test_installed_packages_that_are_not_right(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    install(monkeypatch, value)
    with pytest.raises(HostError, match=message):
        registry.get("theirs")


def test_handlers_are_handlers(registry: Registry) -> None:
    assert issubclass(registry.get("file"), Handler)
