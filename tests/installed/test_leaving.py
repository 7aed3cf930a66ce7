from tests.installed import record


def test_leave(installed: object) -> None:
    record.leave()
