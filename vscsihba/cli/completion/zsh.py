"""The completion script for zsh, made from the syntax of the commands. Runs nothing."""

from collections.abc import Iterator
from typing import Final

from vscsihba.cli.completion.syntax import Option, Syntax, Value

_HEAD: Final = '#compdef vscsihba\n# Completion of vscsihba in zsh; made by "vscsihba completion zsh".\n'

_TAIL: Final = """\
__vscsihba_backstores() {
    local -a found=(${(f)"$(vscsihba completion --backstores 2>/dev/null)"})
    _describe backstore found
}
if [ "$funcstack[1]" = _vscsihba ]; then
    _vscsihba "$@"
else
    compdef _vscsihba vscsihba
fi
"""

_ACTIONS: Final = {"file": "_files", "backstore": "__vscsihba_backstores", "anything": " "}


def script(syntax: Syntax) -> str:
    """Return the script."""
    return "".join([_HEAD, *(f"{line}\n" for line in _functions("_vscsihba", syntax)), _TAIL])


def _functions(name: str, syntax: Syntax) -> Iterator[str]:
    """Yield a function for a command, and one for each below it."""
    yield f"{name}() {{"
    if syntax.commands:
        yield from _choice(name, syntax)
    else:
        yield from _arguments(list(map(_option, syntax.options)), syntax.values)
    yield "}"
    for word, below in syntax.commands.items():
        yield from _functions(_function(name, word), below)


def _choice(name: str, syntax: Syntax) -> Iterator[str]:
    """Yield the body of a function that goes on to the commands below."""
    yield "    local state line curcontext=$curcontext"
    yield "    local -a known=("
    for word, below in syntax.commands.items():
        yield f"        {_quoted(f'{word}:{below.summary}')}"
    yield "    )"
    steps = [_quoted("1:command:->command"), _quoted("*::word:->words")]
    yield f"    _arguments -C {' '.join([*map(_option, syntax.options), *steps])}"
    yield '    case "$state" in'
    yield "    command) _describe command known ;;"
    yield '    words) case "$line[1]" in'
    for word in syntax.commands:
        yield f"        {word}) {_function(name, word)} ;;"
    yield "    esac ;;"
    yield "    esac"


def _arguments(options: list[str], values: tuple[Value, ...]) -> Iterator[str]:
    said = [_quoted(f":{value.name}:{_action(value)}") for value in values]
    yield f"    _arguments {' '.join([*options, *said])}"


def _option(option: Option) -> str:
    """Return an option as _arguments wants it; brackets end its description."""
    text = option.help.replace("[", "(").replace("]", ")").replace(":", r"\:")
    value = "" if option.value is None else f":{option.value.name}:{_action(option.value)}"
    exclusive = f"({' '.join(option.flags)})"
    return " ".join(_quoted(f"{exclusive}{flag}[{text}]{value}") for flag in option.flags)


def _action(value: Value) -> str:
    return f"({' '.join(value.choices)})" if value.choices else _ACTIONS[value.kind]


def _function(name: str, word: str) -> str:
    return f"{name}_{word.replace('-', '_')}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
