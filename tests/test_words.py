from pathlib import Path

import pytest

from tests import words


@pytest.mark.parametrize(
    ("summary", "unclear"),
    [
        ("What a unit keeps.", True),
        ("Return what a unit keeps.", True),
        ("Tell those who watch.", True),
        ("State that a unit keeps.", False),
        ("Return the state, and what it was before.", False),
        ("Return whether a unit is idle.", False),
    ],
)
def test_the_first_words_of_a_summary_decide(summary: str, unclear: bool) -> None:
    assert words.unclear_summary(summary) is unclear


def test_summaries_and_entries_are_found_with_their_lines(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        '"""Good."""\n\n\ndef f(a, b):\n    """Add.\n\n    Args:\n        a: What is added.\n'
        '        b: A number.\n    """\n'
        '\n\nclass C:\n    """Who adds."""\n'
    )
    found = [(one.line, one.text) for one in words.unclear_below([tmp_path])]
    assert found == [(8, "a: What is added."), (14, "Who adds.")]


def test_the_tree_stays_below_the_ceiling(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    assert words.main([]) == 0
    monkeypatch.setattr(words, "CEILING", -1)
    assert words.main([]) == 1
    assert "are allowed" in capsys.readouterr().out
