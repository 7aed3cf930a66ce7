import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.configfs.fake_kernel import FakeKernel
from tests.configfs.strategies import kernels, layouts
from vscsihba.configfs import (
    Backstore,
    BackstoreSpec,
    CreateBackstore,
    CreateHba,
    DeleteBackstore,
    DeleteHba,
    HbaSpec,
    Layout,
    LinkLun,
    Observed,
    Release,
    Resize,
    Serve,
    SetAttribute,
    UnlinkLun,
    apply,
    plan,
)
from vscsihba.errors import HostError, InUseError

KERNELS = kernels()
LAYOUTS = layouts()
A = BackstoreSpec("vscsihba0-lun0", 1 << 20, "a")
B = BackstoreSpec("vscsihba0-lun1", 1 << 20, "b")
BOTH = Layout.of(HbaSpec(0, {0: A.name, 1: B.name}), backstores=(A, B))


def kernel_with(layout: Layout) -> FakeKernel:
    kernel = FakeKernel(Observed(), set())
    apply(plan(Observed(), layout).steps, kernel)
    kernel.done.clear()
    return kernel


def unserved(observed: Observed, served: set[str]) -> set[str]:
    return set(observed.backstores) - served


@settings(deadline=None)
@given(KERNELS, LAYOUTS)
def test_plan_leads_to_what_is_wanted(found: tuple[Observed, set[str]], wanted: Layout) -> None:
    observed, served = found
    assume(not observed.foreign & wanted.hbas.keys())
    kernel = FakeKernel(observed, served)
    apply(plan(observed, wanted, unserved=unserved(observed, served)).steps, kernel)
    assert kernel.observe().layout() == wanted
    assert kernel.served == set(wanted.backstores)


@settings(deadline=None)
@given(KERNELS, LAYOUTS)
def test_second_plan_is_empty(found: tuple[Observed, set[str]], wanted: Layout) -> None:
    observed, served = found
    assume(not observed.foreign & wanted.hbas.keys())
    kernel = FakeKernel(observed, served)
    apply(plan(observed, wanted, unserved=unserved(observed, served)).steps, kernel)
    assert plan(kernel.observe(), wanted).steps == ()


@settings(deadline=None)
@given(LAYOUTS, LAYOUTS, st.data())
def test_failure_at_any_step_leaves_the_old_layout(
    before: Layout, wanted: Layout, data: st.DataObject
) -> None:
    kernel = kernel_with(before)
    steps = plan(kernel.observe(), wanted).steps
    assume(steps)
    kernel.fail_at = data.draw(st.integers(0, len(steps) - 1))
    with pytest.raises(HostError, match="injected"):
        apply(steps, kernel)
    assert kernel.observe().layout() == before
    assert kernel.served == set(before.backstores)


@settings(deadline=None)
@given(KERNELS, LAYOUTS, st.data())
def test_failure_among_leftovers_leaves_the_rules_kept(
    found: tuple[Observed, set[str]], wanted: Layout, data: st.DataObject
) -> None:
    observed, served = found
    assume(not observed.foreign & wanted.hbas.keys())
    kernel = FakeKernel(observed, served)
    steps = plan(observed, wanted, unserved=unserved(observed, served)).steps
    assume(steps)
    kernel.fail_at = data.draw(st.integers(0, len(steps) - 1))
    with pytest.raises(HostError, match="injected"):
        apply(steps, kernel)
    adopted = {step.name for step in kernel.done if isinstance(step, Serve) and step.adopted}
    assert kernel.served == served | adopted


def test_plan_from_nothing_serves_before_it_links() -> None:
    assert plan(Observed(), BOTH).steps == (
        CreateBackstore(A),
        Serve(A.name),
        CreateBackstore(B),
        Serve(B.name),
        CreateHba(0),
        LinkLun(0, 0, A.name),
        LinkLun(0, 1, B.name),
    )


def test_plan_to_nothing_releases_after_it_unlinks() -> None:
    assert plan(kernel_with(BOTH).observe(), Layout()).steps == (
        UnlinkLun(0, 0, A.name),
        UnlinkLun(0, 1, B.name),
        DeleteHba(0),
        Release(A.name),
        DeleteBackstore(A.name, A),
        Release(B.name),
        DeleteBackstore(B.name, B),
    )


def test_plan_for_one_more_lun_touches_no_other() -> None:
    observed = kernel_with(
        BOTH.without_hba(0).updated(Layout.of(HbaSpec(0, {0: A.name}), backstores=(A,)))
    ).observe()
    assert plan(observed, BOTH).steps == (CreateBackstore(B), Serve(B.name), LinkLun(0, 1, B.name))


def test_plan_for_another_size_resizes_in_place() -> None:
    grown = BackstoreSpec(A.name, 2 << 20, "a", qfull_time_out=5)
    made = plan(kernel_with(BOTH).observe(), BOTH.updated(Layout.of(backstores=(grown,))))
    assert made.steps == (SetAttribute(A.name, "qfull_time_out", -1, 5), Resize(A.name, 1 << 20, 2 << 20))
    assert not made.replaced


def test_plan_for_another_block_size_says_that_it_replaces() -> None:
    other = BackstoreSpec(A.name, 1 << 20, "a", block_size=4096)
    made = plan(kernel_with(BOTH).observe(), BOTH.updated(Layout.of(backstores=(other,))))
    assert made.replaced == {A.name}
    assert made.steps == (
        UnlinkLun(0, 0, A.name),
        Release(A.name),
        DeleteBackstore(A.name, A),
        CreateBackstore(other),
        Serve(A.name),
        LinkLun(0, 0, A.name),
    )


def test_plan_ignores_what_the_kernel_does_not_tell() -> None:
    found = Backstore(A, 0, enabled=True, uio=None, unknown=frozenset({"cmd_ring_size_mb"}))
    wanted = Layout.of(backstores=(BackstoreSpec(A.name, A.size, "a", cmd_ring_size_mb=8),))
    assert plan(Observed({A.name: found}), wanted).steps == ()


def test_plan_after_a_crash_only_serves_again() -> None:
    observed = kernel_with(BOTH).observe()
    assert plan(observed, BOTH, unserved=[A.name, B.name]).steps == (
        Serve(A.name, adopted=True),
        Serve(B.name, adopted=True),
    )


def test_plan_takes_a_dead_lun_away_without_waiting() -> None:
    observed = kernel_with(BOTH).observe()
    steps = plan(observed, Layout(), unserved=[A.name, B.name]).steps
    assert steps[:3] == (
        UnlinkLun(0, 0, A.name, served=False, revive=False),
        UnlinkLun(0, 1, B.name, served=False, revive=False),
        DeleteHba(0, revive=False),
    )
    assert all(step.inverse() is None for step in steps)


def test_plan_refuses_an_id_of_somebody_else() -> None:
    with pytest.raises(InUseError, match="somebody else"):
        plan(Observed(foreign=frozenset({0})), BOTH)
