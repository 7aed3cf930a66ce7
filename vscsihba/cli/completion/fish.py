"""The completion script for fish, made from the syntax of the commands. Runs nothing."""

from collections.abc import Iterator
from typing import Final

from vscsihba.cli.completion.syntax import Option, Syntax, Value

_HEAD: Final = """\
# Completion of vscsihba in fish; made by "vscsihba completion fish".
complete -c vscsihba -f
function __vscsihba_at
    # True where the commands on the line are these, and no other.
    set -l words
    for word in (commandline -opc)[2..]
        string match -q -- '-*' $word; or set -a words $word
    end
    test (count $argv) -eq 0; and test (count $words) -eq 0; and return 0
    test (count $argv) -gt 0; and test "$words[1..$(count $argv)]" = "$argv"
end
"""

_BACKSTORES: Final = "(vscsihba completion --backstores 2>/dev/null)"


def script(syntax: Syntax) -> str:
    """Return the script."""
    return _HEAD + "".join(f"{line}\n" for line in _lines((), syntax))


def _lines(at: tuple[str, ...], syntax: Syntax) -> Iterator[str]:
    where = f"complete -c vscsihba -n {_quoted(' '.join(['__vscsihba_at', *at]))}"
    for name, below in syntax.commands.items():
        yield f"{where} -a {name} -d {_quoted(below.summary)}"
    for option in syntax.options:
        yield f"{where} {_option(option)}"
    for value in syntax.values:
        if words := _words(value):
            yield f"{where} {words}"
    for name, below in syntax.commands.items():
        yield from _lines((*at, name), below)


def _option(option: Option) -> str:
    words = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags]
    if option.value is not None:
        words += ["-r", *filter(None, [_words(option.value)])]
    return " ".join([*words, "-d", _quoted(option.help)])


def _words(value: Value) -> str:
    """Return the part of a line that offers the values."""
    if value.kind == "file":
        return "-F"
    if value.kind == "backstore":
        return f"-a {_quoted(_BACKSTORES)}"
    return f"-a {_quoted(' '.join(value.choices))}" if value.choices else ""


def _quoted(text: str) -> str:
    r"""Return a word in fish's single quotes, in which only ``\`` and ``'`` are escaped."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
