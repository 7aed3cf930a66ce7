"""Hypothesis strategies: layouts that are wanted, and kernels as they are found."""

from pathlib import Path

from hypothesis import strategies as st

from vscsihba.configfs import Backstore, BackstoreSpec, Hba, HbaSpec, Layout, Lun, Observed

NAMES = [f"vscsihba-{letter}" for letter in "abcd"]
IDS = range(3)


@st.composite
def specs(draw: st.DrawFn, name: str) -> BackstoreSpec:
    return BackstoreSpec(
        name,
        size=draw(st.sampled_from([1 << 20, 2 << 20])),
        serial=f"serial of {name}",
        block_size=draw(st.sampled_from([512, 4096])),
        qfull_time_out=draw(st.sampled_from([-1, 10])),
        tmr_notification=draw(st.booleans()),
    )


def luns(names: list[str]) -> st.SearchStrategy[dict[int, str]]:
    if not names:
        return st.just({})
    return st.dictionaries(st.integers(0, 3), st.sampled_from(names), max_size=3)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    backstores = {name: draw(specs(name)) for name in names}
    ids = draw(st.lists(st.sampled_from(IDS), unique=True))
    return Layout(backstores, {key: HbaSpec(key, draw(luns(names))) for key in ids})


@st.composite
def kernels(draw: st.DrawFn) -> tuple[Observed, set[str]]:
    """Draw what is in a kernel, some of it half-made, and the names of the rings that are served."""
    layout = draw(layouts())
    backstores = {}
    for name, spec in layout.backstores.items():
        enabled = draw(st.integers(0, 4)) > 0
        backstores[name] = Backstore(spec, 0, enabled=enabled, uio=Path("/dev/uio0") if enabled else None)
    hbas = {key: draw(hba(spec, backstores)) for key, spec in layout.hbas.items()}
    foreign = draw(st.frozensets(st.sampled_from(IDS), max_size=1)) - layout.hbas.keys()
    working = [name for name, found in backstores.items() if found.enabled]
    served = set(draw(st.lists(st.sampled_from(working), unique=True))) if working else set()
    return Observed(backstores, hbas, foreign), served


@st.composite
def hba(draw: st.DrawFn, spec: HbaSpec, backstores: dict[str, Backstore]) -> Hba:
    complete = draw(st.integers(0, 4)) > 0
    found = {}
    for number, name in spec.luns.items():
        linked = backstores[name].enabled and draw(st.integers(0, 4)) > 0
        scanned = linked and complete and draw(st.integers(0, 4)) > 0
        found[number] = Lun(number, name if linked else None, f"{spec.id}:0:1:{number}" if scanned else None)
    return Hba(spec.id, found, spec.id if complete else None, complete)
