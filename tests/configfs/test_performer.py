import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba.configfs import (
    Backstore,
    BackstoreSpec,
    HbaSpec,
    Layout,
    Observed,
    Performer,
    Progress,
    Serve,
    Step,
    apply,
    observe,
    plan,
)
from vscsihba.errors import HostError, VscsihbaError

A = BackstoreSpec("vscsihba0-lun0", 1 << 20, "a")
B = BackstoreSpec("vscsihba0-lun1", 1 << 20, "b", qfull_time_out=5)
BOTH = Layout.of(HbaSpec(0, {0: A.name, 1: B.name}), backstores=(A, B))


class Server:
    def __init__(self) -> None:
        self.served: set[str] = set()

    def serve(self, backstore: Backstore) -> None:
        assert backstore.uio is not None
        self.served.add(backstore.name)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def perform(kernel: FakeConfigfs, server: Server) -> Performer:
    return Performer(server.serve, server.served.remove)


def test_layout_is_made_and_removed(perform: Performer, server: Server) -> None:
    apply(plan(Observed(), BOTH).steps, perform)
    assert observe().layout() == BOTH
    assert server.served == {A.name, B.name}
    apply(plan(observe(), Layout()).steps, perform)
    assert observe() == Observed()
    assert server.served == set()


def test_attributes_and_sizes_are_set_in_place(perform: Performer, kernel: FakeConfigfs) -> None:
    apply(plan(Observed(), BOTH).steps, perform)
    other = BackstoreSpec(A.name, 2 << 20, "a", qfull_time_out=9)
    apply(plan(observe(), BOTH.updated(Layout.of(backstores=(other,)))).steps, perform)
    control = kernel.core / "user_0" / A.name / "control"
    assert control.read_text() == f"dev_size={2 << 20}\n"
    assert kernel.attribute(A.name, "qfull_time_out").split()[0] == "9"


@pytest.mark.parametrize("at", range(7))
def test_failure_is_undone_in_reverse_order(perform: Performer, server: Server, at: int) -> None:
    steps = plan(Observed(), BOTH).steps
    assert len(steps) == 7
    done: list[Step] = []

    def failing(step: Step) -> None:
        if len(done) == at:
            done.append(step)
            raise HostError("injected")
        perform(step)
        done.append(step)

    with pytest.raises(HostError, match="injected"):
        apply(steps, failing)
    assert done[at + 1 :] == [step.inverse() for step in reversed(steps[:at])]
    assert observe() == Observed()
    assert server.served == set()


def test_interruption_is_undone_too(perform: Performer) -> None:
    def interrupted(step: Step) -> None:
        if step == Serve(B.name):
            raise KeyboardInterrupt
        perform(step)

    with pytest.raises(KeyboardInterrupt):
        apply(plan(Observed(), BOTH).steps, interrupted)
    assert observe() == Observed()


def test_progress_is_reported_both_ways() -> None:
    def perform(step: Step) -> None:
        if isinstance(step, Serve):
            raise HostError("first")
        if step == steps[0].inverse():
            raise HostError("second")

    steps = plan(Observed(), BOTH).steps
    seen: list[Progress] = []
    with pytest.raises(VscsihbaError, match="first"):
        apply(steps, perform, seen.append)
    assert [(progress.number, progress.undoing) for progress in seen] == [
        (1, False),
        (2, False),
        (1, True),
        (1, True),
    ]
    assert seen[0].total == 7
    assert str(seen[-1].failure) == "second"


def test_steps_say_what_they_do() -> None:
    grown = Layout.of(
        HbaSpec(1, {0: A.name}), backstores=(BackstoreSpec(A.name, 2 << 20, "a", qfull_time_out=9),)
    )
    found = {spec.name: Backstore(spec, 0, enabled=True, uio=None) for spec in (A, B)}
    steps = plan(Observed(found), grown).steps
    assert [str(step) for step in steps] == [
        "set qfull_time_out of vscsihba0-lun0 from -1 to 9",
        "resize vscsihba0-lun0 from 1.0 MiB to 2.0 MiB",
        "create HBA 1",
        "link LUN 0 of HBA 1 to vscsihba0-lun0",
        "release vscsihba0-lun1",
        "delete backstore vscsihba0-lun1",
    ]
    assert [str(step.inverse()) for step in steps] == [
        "set qfull_time_out of vscsihba0-lun0 from 9 to -1",
        "resize vscsihba0-lun0 from 2.0 MiB to 1.0 MiB",
        "delete HBA 1",
        "unlink LUN 0 of HBA 1",
        "serve vscsihba0-lun1",
        "create backstore vscsihba0-lun1 of 1.0 MiB",
    ]
