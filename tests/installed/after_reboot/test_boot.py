from tests.installed import record


def test_booted() -> None:
    assert record.found()
