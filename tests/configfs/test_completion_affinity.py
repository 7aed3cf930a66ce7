import pytest

from tests.configfs.fake_configfs import FakeConfigfs
from vscsihba.configfs import create_hba, set_completion_affinity, wwn_of
from vscsihba.errors import HostError


@pytest.mark.parametrize(("on_server", "text"), [(True, "-2"), (False, "-1")])
def test_the_setting_is_written_to_the_target(kernel: FakeConfigfs, on_server: bool, text: str) -> None:
    create_hba(3)
    set_completion_affinity(3, on_server)
    setting = kernel.loopback / wwn_of(3) / "param/cmd_completion_affinity"
    assert setting.read_text().strip() == text


def test_a_missing_setting_or_hba_is_an_error(kernel: FakeConfigfs) -> None:
    with pytest.raises(HostError, match="cmd_completion_affinity"):
        set_completion_affinity(9, True)
