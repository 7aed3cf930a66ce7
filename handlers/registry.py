"""The registry: handlers by name, imported when they are first used.

A name is looked for among the built-in handlers, then among those loaded from files,
then among the entry points of installed packages (group ``vscsihba.handlers``). A name
that ends in ``.py`` is a file itself, and ``FILE.py:NAME`` one of several in a file. What is built
in cannot be replaced.
"""

import importlib.util
import inspect
import os
import re
import sys
import zlib
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from vscsihba.errors import HostError, UsageError
from vscsihba.handlers.base import Handler
from vscsihba.handlers.options import did_you_mean

GROUP = "vscsihba.handlers"

_BUILT_IN = {
    "cache": "vscsihba.handlers.cache.handler:CacheHandler",
    "corrupt": "vscsihba.handlers.corrupt:CorruptHandler",
    "cow": "vscsihba.handlers.cow.handler:CowHandler",
    "delay": "vscsihba.handlers.delay:DelayHandler",
    "encrypt": "vscsihba.handlers.encrypt.handler:EncryptHandler",
    "error": "vscsihba.handlers.error:ErrorHandler",
    "file": "vscsihba.handlers.file.handler:FileHandler",
    "http": "vscsihba.handlers.http.handler:HttpHandler",
    "log": "vscsihba.handlers.log:LogHandler",
    "memory": "vscsihba.handlers.memory:MemoryHandler",
    "mirror": "vscsihba.handlers.mirror.handler:MirrorHandler",
    "nbd": "vscsihba.handlers.nbd.handler:NbdHandler",
    "null": "vscsihba.handlers.null:NullHandler",
    "offset": "vscsihba.handlers.offset:OffsetHandler",
    "pattern": "vscsihba.handlers.pattern:PatternHandler",
    "qemu": "vscsihba.handlers.qemu.handler:QemuHandler",
    "rate": "vscsihba.handlers.rate:RateHandler",
    "rbd": "vscsihba.handlers.rbd.handler:RbdHandler",
    "readonly": "vscsihba.handlers.readonly:ReadonlyHandler",
    "sg": "vscsihba.handlers.sg.handler:SgHandler",
    "snapshot": "vscsihba.handlers.snapshot.handler:SnapshotHandler",
    "split": "vscsihba.handlers.split:SplitHandler",
    "stats": "vscsihba.handlers.stats:StatsHandler",
}


_IN_FILE = re.compile(r"(.*\.py)(?::([^:/]+))?")


class Registry:
    """The handlers that documents can name."""

    def __init__(self) -> None:
        self._loaded: dict[str, type[Handler]] = {}
        self._origins: dict[str, Path] = {}

    def names(self) -> list[str]:
        """Return every name that `get` knows, sorted."""
        return sorted({*_BUILT_IN, *self._loaded, *_installed()})

    def get(self, name: str) -> type[Handler]:
        """Return the class of the handler called `name`, which may be in a file.

        Raises:
            UsageError: There is none of that name, or its file is not right.
            HostError: Its package cannot be imported.
        """
        if in_file := _IN_FILE.fullmatch(name):
            return self._from_file(Path(in_file[1]), in_file[2])
        if name in _BUILT_IN:
            module, _, attribute = _BUILT_IN[name].partition(":")
            return _handler_class(getattr(import_module(module), attribute), origin=module)
        if name in self._loaded:
            return self._loaded[name]
        if name in (installed := _installed()):
            return _from_entry_point(installed[name])
        raise UsageError(f"there is no handler {name!r}", cure=did_you_mean(name, self.names()))

    def lasting(self, name: str, folder: Path) -> str:
        """Return the name by which any process, in any directory, finds the same handler.

        Args:
            name: As for `get`.
            folder: The folder that a relative path in it begins in.
        """
        if in_file := _IN_FILE.fullmatch(name):
            return str(folder / in_file[1]) + (f":{in_file[2]}" if in_file[2] else "")
        return f"{self._origins[name]}:{name}" if name in self._origins else name

    def load_file(self, path: Path) -> list[type[Handler]]:
        """Run a Python file; register the handlers that it defines, and return them.

        Raises:
            UsageError: It cannot be read or run, defines no handler, or takes a name
                that is taken.
        """
        module = _run(path)
        kinds = [
            kind
            for kind in vars(module).values()
            if inspect.isclass(kind) and issubclass(kind, Handler) and kind.__module__ == module.__name__
            if not inspect.isabstract(kind) and hasattr(kind, "name")
        ]
        if not kinds:
            raise UsageError(
                f"{path} defines no handler",
                cure="derive a class from vscsihba.handlers.base.Handler and give it a name",
            )
        for kind in kinds:
            self._register(kind, path)
        return kinds

    def _register(self, kind: type[Handler], path: Path) -> None:
        if kind.name in _BUILT_IN:
            raise UsageError(
                f"{path}: the name {kind.name!r} belongs to a built-in handler", cure="change it"
            )
        self._loaded[kind.name] = kind
        self._origins[kind.name] = path.absolute()

    def _from_file(self, path: Path, name: str | None) -> type[Handler]:
        """Return the handler called `name` in a file; the only one, if there is no name."""
        kinds = {kind.name: kind for kind in self.load_file(path)}
        if name is None and len(kinds) > 1:
            raise UsageError(
                f"{path} defines several handlers: {', '.join(kinds)}",
                cure=f"say which one: {path}:{next(iter(kinds))}",
            )
        name = name or next(iter(kinds))
        if name not in kinds:
            raise UsageError(f"{path} defines no handler {name!r}", cure=did_you_mean(name, kinds))
        return kinds[name]


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _from_entry_point(point: EntryPoint) -> type[Handler]:
    """Import the handler of an entry point.

    Raises:
        HostError: It cannot be imported, or is no handler.
    """
    try:
        loaded = point.load()
    except (ImportError, AttributeError) as error:
        raise HostError(f"handler {point.name} ({point.value}) cannot be imported: {error}") from error
    return _handler_class(loaded, origin=point.value)


def _handler_class(loaded: object, *, origin: str) -> type[Handler]:
    if not (inspect.isclass(loaded) and issubclass(loaded, Handler)):
        raise HostError(
            f"{origin} is not a handler", cure="it must derive from vscsihba.handlers.base.Handler"
        )
    return loaded


def _run(path: Path) -> ModuleType:
    """Import `path` under a name of its own, so that two files of one name do not meet."""
    name = f"vscsihba_handler_{path.stem}_{zlib.crc32(os.fsencode(path.resolve())):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"{path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is somebody else's code, which may raise anything
        del sys.modules[spec.name]
        raise UsageError(f"{path} cannot be run: {_in_one_line(error)}") from error
    return module


def _in_one_line(error: Exception) -> str:
    kind = "" if isinstance(error, ImportError | SyntaxError | OSError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())
