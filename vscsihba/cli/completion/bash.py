"""The completion script for bash, made from the syntax of the commands. Runs nothing."""

from collections.abc import Iterator
from shlex import quote
from typing import Final

from vscsihba.cli.completion.syntax import Syntax, Value

_SCRIPT: Final = """\
# Completion of vscsihba in bash; made by "vscsihba completion bash".
_vscsihba() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local at="" words="" files="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$at ${{COMP_WORDS[i]}}" in
{steps}
        esac
    done
    case "$at" in
{places}
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    if [ -n "$files" ]; then
        compopt -o filenames 2>/dev/null
        mapfile -t -O "${{#COMPREPLY[@]}}" COMPREPLY < <(compgen -f -- "$current")
    fi
}}
complete -F _vscsihba vscsihba
"""

_BACKSTORES: Final = "$(vscsihba completion --backstores 2>/dev/null)"


def script(syntax: Syntax) -> str:
    """Return the script."""
    return _SCRIPT.format(steps="\n".join(_steps("", syntax)), places="\n".join(_places("", syntax)))


def _steps(at: str, syntax: Syntax) -> Iterator[str]:
    """Yield the step from one place to the next for each command."""
    for name, below in syntax.commands.items():
        place = f"{at} {name}".strip()
        yield f"        {quote(f'{at} {name}')}) at={quote(place)} ;;"
        yield from _steps(place, below)


def _places(at: str, syntax: Syntax) -> Iterator[str]:
    """Yield the words that are possible at each place."""
    yield f"    {quote(at)})"
    yield '        case "$previous" in'
    for option in syntax.options:
        if option.value is not None:
            yield f"        {' | '.join(option.flags)}) {_assign(option.value)} ;;"
    flags = [option.flags[-1] for option in syntax.options]
    said = [word for value in syntax.values for word in _words(value)]
    files = "; files=yes" * any(value.kind == "file" for value in syntax.values)
    words = " ".join([*syntax.commands, *said, *flags])
    yield f'        *) words="{words}"{files} ;;'
    yield "        esac"
    yield "        ;;"
    for name, below in syntax.commands.items():
        yield from _places(f"{at} {name}".strip(), below)


def _assign(value: Value) -> str:
    if value.kind == "file":
        return "files=yes"
    return f'words="{" ".join(_words(value))}"'


def _words(value: Value) -> tuple[str, ...]:
    return (_BACKSTORES,) if value.kind == "backstore" else value.choices
