import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsihba.configfs import backstore_name, id_of, wwn_of
from vscsihba.configfs.names import check_config, check_name, initiator_of, is_ours
from vscsihba.errors import UsageError


@pytest.mark.parametrize("hba_id", range(256))
def test_wwn_carries_the_id(hba_id: int) -> None:
    wwn = wwn_of(hba_id)
    assert id_of(wwn) == hba_id
    assert len(wwn) == len("naa.") + 16


def test_wwn_is_as_written_down() -> None:
    assert wwn_of(255) == "naa.50014055c51ba0ff"
    assert initiator_of(wwn_of(255)) == "naa.50014055c51ba1ff"
    assert id_of(initiator_of(wwn_of(255))) is None, "an initiator port is no HBA"


@given(st.text())
def test_other_wwns_have_no_id(wwn: str) -> None:
    assert id_of(wwn) is None


@pytest.mark.parametrize("wwn", ["naa.50014055c51ba100", "naa.50014055c51ba0FF", "naa.50014055c51ba00", ""])
def test_similar_wwns_have_no_id(wwn: str) -> None:
    assert id_of(wwn) is None


def test_backstore_name() -> None:
    assert backstore_name(3, 12) == "vscsihba3-lun12"


@pytest.mark.parametrize(
    ("hba_id", "lun", "message"),
    [(0, 1 << 14, "LUN 16384"), (0, -1, "LUN -1"), (256, 0, "HBA id 256"), (-1, 0, "HBA id -1")],
)
def test_backstore_name_refuses_numbers_out_of_range(hba_id: int, lun: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        backstore_name(hba_id, lun)


@pytest.mark.parametrize(
    "name", ["", "disk", "vscsihba 0", "vscsihba/0", "vscsihba" + "x" * 60, "vscsihba\n"]
)
def test_check_name_refuses(name: str) -> None:
    with pytest.raises(UsageError, match="is not a backstore name"):
        check_name(name)


@pytest.mark.parametrize("config", ["a:b", "a,b", "a b", "a\n", "x" * 247])
def test_check_config_refuses_text_that_would_be_changed(config: str) -> None:
    with pytest.raises(UsageError, match="is not a backstore configuration"):
        check_config(config)


def test_check_config_takes_the_longest() -> None:
    assert len(f"vscsihba/{check_config('x' * 246)}") == 255


@pytest.mark.parametrize(
    ("name", "configured", "ours"),
    [
        ("vscsihba0-lun0", "vscsihba/0.0", True),
        ("renamed", "vscsihba/0.0", True),
        ("vscsihba0-lun0", "file//srv/disk", False),
        ("vscsihba0-lun0", "", True),
        ("disk", "", False),
        ("disk", "vscsihbafoo/", False),
    ],
)
def test_is_ours(name: str, configured: str, ours: bool) -> None:
    assert is_ours(name, configured) is ours
