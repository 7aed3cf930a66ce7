"""Disks of the simulator that are resized while they are in use: ``./dev sim mirror-resized``.

They stand beside the others of `layers`. The tests do not play them, since some of their histories still
break a promise (docs/trust.md, "Open").
"""

from dataclasses import replace
from typing import Final

from tests.sim.initiator import Step
from tests.sim.layers import LAYERS, NOTHING, OLDER, Layer

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


RESIZED: Final = {
    layer.name: layer
    for layer in (
        *map(_resized, (LAYERS[name] for name in ("file", "direct", "cow", "write-through", "write-back"))),
        _resized(LAYERS["mirror"]),
        _resized(LAYERS["snapshot"], "take", "delete"),
    )
}
