"""Checks of a document against this machine, before anything is changed.

They find mistakes that the document alone does not show: files that are missing, in use or readable by
others, two names of one file, sizes that a file cannot have. They change nothing, and open nothing for
writing.
"""

from pathlib import Path

from vscsihba.config.model import Document, StackDocument
from vscsihba.config.stacks import Layer, layers_of
from vscsihba.daemon.backing_files import BackingFile, backing_files, check_distinct
from vscsihba.daemon.free_space import check_size
from vscsihba.daemon.holders import Holders, Key, find_holders, holders_of, our_disk
from vscsihba.errors import ConfigError, HostError, UsageError
from vscsihba.handlers.options import secret_options
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.shared.private_file import check_private
from vscsihba.handlers.stack import build


def check_machine(target: Document, running: Document, registry: Registry | None = None) -> None:
    """Refuse a document that this machine cannot serve, as far as that can be known beforehand.

    Args:
        target: All disks after the change (`vscsihba.config.changes.Changes.target`).
        running: The running document; disks that stay as they are are not checked.
        registry: The known handlers.

    Raises:
        ConfigError: An entry of `target` conflicts with the machine, or with another entry.
        HostError: The machine lacks something.
    """
    registry = registry or Registry()
    wanted = _layers(target, registry)
    unchanged = {name for name in wanted if running.backstores.get(name) == target.backstores[name]}
    in_order = sorted(wanted, key=lambda name: name not in unchanged)  # so that errors name new entries
    check_distinct([file for name in in_order for file in backing_files(wanted[name])])
    holders = find_holders()
    ours = {file.key for layers in _layers(running, registry).values() for file in backing_files(layers)}
    for name, layers in wanted.items():
        if running.place_of(name) is None or running.backstores[name] != target.backstores[name]:
            _check_secrets(layers)
            for file in backing_files(layers):
                _check_free(file, ours, holders)
                check_size(file)
            _check_layers(target.backstores[name], registry, _place(name))


def check_new(document: Document, name: str, registry: Registry) -> None:
    """Check a backstore that a person has just described, which no LUN needs to show yet.

    Args:
        document: A document with it.
        name: Its name.
        registry: The known handlers.

    Raises:
        ConfigError: Its storage is missing, and is not to be created.
        HostError: The machine lacks something.
    """
    stack = document.backstores[name]
    _check_secrets(list(layers_of(stack, registry, _place(name))))
    _check_layers(stack, registry, _place(name), reachable=True)


def _place(name: str) -> str:
    return f"$.backstores.{name}"


def _layers(document: Document, registry: Registry) -> dict[str, list[Layer]]:
    """Return the layers of each backstore that a LUN shows."""
    return {
        name: list(layers_of(stack, registry, _place(name)))
        for name, stack in document.backstores.items()
        if document.place_of(name) is not None
    }


def _check_secrets(layers: list[Layer]) -> None:
    """Refuse a file with a key that other users than its owner can read."""
    for layer in layers:
        for option in sorted(secret_options(layer.kind.Options) & layer.document.keys()):
            try:
                check_private(Path(str(layer.document[option])))
            except UsageError as error:
                raise ConfigError(f"{layer.place}.{option}", error.message, cure=error.cure) from error


def _check_free(file: BackingFile, ours: set[Key], holders: Holders) -> None:
    """Refuse a file that another program uses, and a disk of vscsihba itself."""
    if (served := our_disk(file.path, holders)) is not None:
        raise ConfigError(
            file.place,
            f"{file.path} is {served} itself: the disk would be stored on itself",
            cure="name the storage behind that LUN",
        )
    users = [] if file.key in ours else holders_of(file.path, holders, read_only=file.shared)
    if users:
        raise ConfigError(file.place, f"{file.path} is in use: {users[0]}", cure="release it first")


def _check_layers(stack: StackDocument, registry: Registry, place: str, *, reachable: bool = False) -> None:
    """Refuse a stack with a layer that cannot be opened; with `reachable` also one without its server."""
    layers = build(stack, registry=registry, place=place).layers
    for height, layer in enumerate(layers):
        where = place + ".next" * (len(layers) - 1 - height)
        try:
            layer.check()
            if reachable:
                layer.check_reachable()
        except UsageError as error:
            raise ConfigError(where, error.message, cure=error.cure) from error
        except HostError as error:
            raise HostError(f"{where}: {error.message}", cure=error.cure) from error
        except OSError as error:
            raise HostError(f"{where}: {error.strerror or error}") from error
