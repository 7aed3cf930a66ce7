"""Putting a fault into functions of a module that is imported already. Knows nothing of tests."""

import gc
import os
from collections import Counter
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Final

Key = tuple[str, int]


class Functions:
    """The functions of one module that exist in this process.

    Args:
        path: File of the module.
        original: Code of the module without a fault.
    """

    def __init__(self, path: str, original: CodeType) -> None:
        self._original: Final = {_key(code): code for code in _nested(original)}
        number = Counter(_key(code) for code in _nested(original))
        self._ambiguous: Final = {key for key, count in number.items() if count > 1}
        self._found: Final = [
            each
            for each in gc.get_objects()
            if type(each) is FunctionType and os.path.realpath(each.__code__.co_filename) == path
        ]

    def runs_at_import(self, mutated: CodeType) -> bool:
        """Return whether the fault of a module is in code that ran when the module was imported."""
        changed = self._changed(mutated)
        return not any(_key(function.__code__) in changed for function in self._found)

    def swap(self, mutated: CodeType) -> bool:
        """Give the functions the code of a module with one fault.

        Returns:
            Whether the fault is in use now. It is not if it is in code that ran at import.
        """
        changed = self._changed(mutated)
        if self._ambiguous & changed.keys() or self.runs_at_import(mutated):
            return False
        swapped = False
        for function in self._found:
            if (new := changed.get(_key(function.__code__))) is not None:
                try:
                    function.__code__ = new
                except ValueError:  # another number of free variables
                    return False
                swapped = True
        return swapped

    def _changed(self, mutated: CodeType) -> dict[Key, CodeType]:
        return {_key(code): code for code in _nested(mutated) if code != self._original.get(_key(code))}


def _nested(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and every one that is nested in it."""
    yield code
    for each in _inside(code):
        yield from _nested(each)


def _inside(code: CodeType) -> Iterator[CodeType]:
    return (each for each in code.co_consts if isinstance(each, CodeType))


def _key(code: CodeType) -> Key:
    """Return the name and the first line of a code object, which a fault inside it does not change."""
    return code.co_qualname, code.co_firstlineno
