"""Disks of the simulator that are resized while they are in use: ``./dev sim mirror-resized``.

They stand beside the others of `layers`, since engines do not resize the disks that they hand over.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.sim.initiator import Step
from tests.sim.layers import LAYERS, NOTHING, OLDER, Layer
from vscsihba.handlers.stack import Document

_SCRIPT: Final = (
    Step("write", 250, 8),
    Step("resize", count=773),
    Step("write", 500, 200),
    Step("flush"),
    Step("wait", count=6),
    Step("resize", count=513),
    Step("write", 509, 4),
    Step("resize", count=300),
    Step("write_fua", 297, 3),
    Step("resize", count=640),
    Step("unmap", 509, 131),
    Step("write", 636, 4),
    Step("wait", count=12),
    Step("read", 0, 640),
)
_ROLL_BACK_SCRIPT: Final = (
    Step("write", 250, 8),
    Step("take", argument="one"),
    Step("resize", count=773),
    Step("write", 500, 200),
    Step("take", argument="two"),
    Step("resize", count=300),
    Step("write_fua", 297, 3),
    Step("roll_back", argument="one"),
    Step("write", 509, 3),
    Step("roll_back", argument="two"),
    Step("delete", argument="one"),
    Step("read", 0, 773),
)


def _resized(layer: Layer, *verbs: str) -> Layer:
    media = tuple(replace(medium, kinds=(NOTHING, OLDER)) for medium in layer.media if medium.is_a_leg)
    return replace(
        layer,
        name=f"{layer.name}-resized",
        script=_SCRIPT,
        verbs=(*layer.verbs, "resize", "resize", *verbs),
        alone=(),
        media=media,
    )


def _encrypted() -> Layer:
    """Return a disk in a container; sectors of the container that nobody has written read as zeroes."""
    layer = LAYERS["luks1"]

    def document(root: Path) -> Document:
        found = layer.document(root)
        assert isinstance(found, dict)
        return {**found, "discard": True}

    return replace(layer, document=document, verbs=LAYERS["file"].verbs)


RESIZED: Final = {
    layer.name: layer
    for layer in (
        _resized(_encrypted()),
        *map(_resized, (LAYERS[name] for name in ("file", "direct", "cow", "write-through", "write-back"))),
        _resized(LAYERS["mirror"]),
        _resized(LAYERS["snapshot"], "take", "delete"),  # while others send requests
        replace(
            _resized(LAYERS["snapshot"]),
            name="snapshot-resized-back",
            script=_ROLL_BACK_SCRIPT,
            alone=("take", "take", "roll_back", "roll_back", "delete"),
        ),
    )
}
