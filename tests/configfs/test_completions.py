import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba.configfs import complete_where_answered, create_hba, wwn_of
from vscsihba.errors import HostError


@pytest.mark.parametrize(("answered", "text"), [(True, "-2"), (False, "-1")])
def test_the_setting_is_the_whole_targets(kernel: FakeConfigfs, answered: bool, text: str) -> None:
    create_hba(3)
    complete_where_answered(3, answered)
    setting = kernel.loopback / wwn_of(3) / "param/cmd_completion_affinity"
    assert setting.read_text().strip() == text


def test_a_kernel_without_it_and_an_hba_that_is_gone_are_told_alike(kernel: FakeConfigfs) -> None:
    with pytest.raises(HostError, match="cmd_completion_affinity"):
        complete_where_answered(9, True)
