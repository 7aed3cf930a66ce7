"""A document held against this machine before anything is touched.

Finds what no reading of the document can: files that are not there, that others have or can read,
that are one file under two names, or that cannot have their size. Changes nothing, and opens nothing
for writing.
"""

import stat
from pathlib import Path

from vscsihba.config.model import Document, StackDocument
from vscsihba.config.stacks import Layer, layers_of
from vscsihba.daemon.holders import Key, Surroundings, holders_of, look_around, our_disk
from vscsihba.daemon.media import Medium, check_apart, media_of
from vscsihba.daemon.room import check_size
from vscsihba.errors import ConfigError, HostError, UsageError
from vscsihba.handlers.options import secret_options
from vscsihba.handlers.registry import Registry
from vscsihba.handlers.stack import build


def check_machine(target: Document, running: Document, registry: Registry | None = None) -> None:
    """Refuse a document that this machine cannot carry out, as far as that can be known beforehand.

    Args:
        target: All that there is to be (`vscsihba.config.changes.Changes.target`).
        running: What there is. A disk that works and stays as it is, is not looked at.
        registry: Where handlers come from.

    Raises:
        ConfigError: Something in `target` does not go with the machine, or with something else in it.
        HostError: The machine lacks something.
    """
    registry = registry or Registry()
    wanted = _layers(target, registry)
    stays = {name for name in wanted if running.backstores.get(name) == target.backstores[name]}
    in_order = sorted(wanted, key=lambda name: name not in stays)  # what is new is to be blamed
    check_apart([medium for name in in_order for medium in media_of(wanted[name])])
    around = look_around()
    ours = {medium.key for layers in _layers(running, registry).values() for medium in media_of(layers)}
    for name, layers in wanted.items():
        if running.place_of(name) is None or running.backstores[name] != target.backstores[name]:
            _check_secrets(layers)
            for medium in media_of(layers):
                _check_free(medium, ours, around)
                check_size(medium)
            _check_layers(target.backstores[name], registry, _place(name))


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
    """Refuse a file with a key that others than its owner can read."""
    for layer in layers:
        for option in sorted(secret_options(layer.kind.Options) & layer.document.keys()):
            path = Path(str(layer.document[option]))
            try:
                mode = stat.S_IMODE(path.stat().st_mode)
            except OSError as error:
                where, why = f"{layer.place}.{option}", f"{path}: {error.strerror}"
                raise ConfigError(where, why, cure="name a file that is there") from error
            if mode & 0o077:
                raise ConfigError(
                    f"{layer.place}.{option}",
                    f"others can read {path} (mode {mode:04o})",
                    cure=f"chmod 600 {path}",
                )


def _check_free(medium: Medium, ours: set[Key], around: Surroundings) -> None:
    """Refuse what somebody else has, and disks of our own."""
    if (served := our_disk(medium.path, around)) is not None:
        raise ConfigError(
            medium.place,
            f"{medium.path} is {served} itself, and would wait for itself",
            cure="name what that LUN is made of",
        )
    holders = [] if medium.key in ours else holders_of(medium.path, around, read_only=medium.shared)
    if holders:
        raise ConfigError(
            medium.place, f"{medium.path} is in use: {holders[0]}", cure="let go of it there first"
        )


def _check_layers(stack: StackDocument, registry: Registry, place: str) -> None:
    """Ask every layer whether it can open."""
    layers = build(stack, registry=registry, place=place).layers
    for height, layer in enumerate(layers):
        where = place + ".next" * (len(layers) - 1 - height)
        try:
            layer.check()
        except UsageError as error:
            raise ConfigError(where, error.message, cure=error.cure) from error
        except HostError as error:
            raise HostError(f"{where}: {error.message}", cure=error.cure) from error
        except OSError as error:
            raise HostError(f"{where}: {error.strerror or error}") from error
