"""Documents made up by Hypothesis: few names, files and numbers, so that they often meet."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from vscsihba.config.model import Document, Hba, Lun, StackDocument

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

SIZES = ("1MiB", "2MiB", "3MiB")
FILES = ("/a.img", "/b.img", "/c.img")


Strategies = dict[str, st.SearchStrategy[object]]


def files() -> st.SearchStrategy[StackDocument]:
    always: Strategies = {"handler": st.just("file"), "path": st.sampled_from(FILES)}
    at_times: Strategies = {"size": st.sampled_from(SIZES), "direct": st.just(value=True)}
    return st.fixed_dictionaries(always, optional=at_times)


def stacks() -> st.SearchStrategy[StackDocument]:
    memory: Strategies = {"handler": st.just("memory"), "size": st.sampled_from(SIZES)}
    sources = st.one_of(files(), st.fixed_dictionaries(memory))
    filters: Strategies = {"handler": st.sampled_from(["stats", "log"]), "next": sources}
    return st.one_of(sources, st.fixed_dictionaries(filters)).map(_in_order)


def _in_order(stack: StackDocument) -> StackDocument:
    """Return a stack with its keys as the handlers declare them: what differs in nothing else is the same."""
    below = stack.get("next")
    whole = {**stack, "next": _in_order(below)} if isinstance(below, dict) else stack
    return {key: whole[key] for key in ("handler", "path", "size", "direct", "next") if key in whole}


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Return a document that `load` could have made, but that files may be named twice."""
    backstores = draw(st.dictionaries(st.sampled_from("abcdef"), stacks()))
    names = draw(st.permutations(sorted(backstores)))
    numbers = st.tuples(st.integers(0, 2), st.integers(0, 2))
    places = draw(st.lists(numbers, unique=True, max_size=len(names)))
    hbas = {hba_id: draw(st.integers(1, 2)) for hba_id in draw(st.sets(st.integers(0, 2)))}
    luns: dict[int, list[Lun]] = {hba_id: [] for hba_id in {*hbas, *(place[0] for place in places)}}
    for (hba_id, number), name in zip(places, names, strict=False):
        luns[hba_id].append(draw(_luns(number, name)))
    return Document(
        backstores={name: backstores[name] for name in sorted(backstores)},
        hbas=tuple(
            Hba(key, engines=hbas.get(key, 1), luns=tuple(sorted(luns[key], key=lambda lun: lun.lun)))
            for key in sorted(luns)
        ),
    )


def _luns(number: int, backstore: str) -> st.SearchStrategy[Lun]:
    return st.builds(
        Lun,
        lun=st.just(number),
        backstore=st.just(backstore),
        read_only=st.booleans(),
        queue_depth=st.sampled_from([None, 8]),
    )
