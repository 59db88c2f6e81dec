"""Regular expressions in RE2's syntax, matched in linear time (tenants write them).

The only place that knows the library: everything else in ``polder.api`` asks here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from polder.api.cel.errors import Fault
from polder.api.cel.functions import Library, member, metered
from polder.api.cel.types import INT, STRING, list_of
from polder.api.cel.values import Meter

if TYPE_CHECKING:
    import re2

_MEMORY: Final = 2 << 20
"""Bytes that one compiled expression and its automaton may take."""
_WORDS: Final = (
    (re.compile(r"missing \): (.*)", re.DOTALL), "missing closing ): `{whole}`"),
    (re.compile(r"unexpected \): (.*)", re.DOTALL), "unexpected ): `{whole}`"),
    (re.compile(r"missing \]: (.*)", re.DOTALL), "missing closing ]: `{0}`"),
    (re.compile(r"invalid repetition size: (.*)", re.DOTALL), "invalid repeat count: `{0}`"),
    (re.compile(r"bad repetition operator: (.*)", re.DOTALL), "invalid nested repetition operator: `{0}`"),
    (re.compile(r"no argument for repetition operator: (.*)", re.DOTALL),
     "missing argument to repetition operator: `{0}`"),
    (re.compile(r"invalid perl operator: (.*)", re.DOTALL), "invalid or unsupported Perl syntax: `{0}`"),
    (re.compile(r"trailing \\.*", re.DOTALL), "trailing backslash at end of expression: ``"),
    (re.compile(r"(invalid [a-z ]+): (.*)", re.DOTALL), "{0}: `{1}`"),
)  # fmt: skip


class RegexError(ValueError):
    """A pattern that is none, in the words of Go's regexp."""


def _said(problem: Any, pattern: str) -> str:
    text = problem.decode(errors="replace") if isinstance(problem, bytes) else str(problem)
    for form, words in _WORDS:
        match = form.fullmatch(text)
        if match is not None:
            return "error parsing regexp: " + words.format(*match.groups(), whole=pattern)
    return f"error parsing regexp: {text}"


@functools.lru_cache(maxsize=64)
def compiled(pattern: str) -> re2._Regexp[str]:
    """The pattern, ready to match. Raises RegexError."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise RegexError(_said(error.args[0] if error.args else error, pattern)) from None


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a text contains the pattern. Raises RegexError."""
    found = compiled(pattern)
    return lambda text: found.search(text) is not None


def _for_cel(pattern: str, words: str) -> re2._Regexp[str]:
    try:
        return compiled(pattern)
    except RegexError as error:
        raise Fault(f"{words}{error}") from None


def matches(meter: Meter, text: str, pattern: str) -> bool:
    """CEL's ``matches``. Raises Fault."""
    meter.work(len(text) // 500 + len(pattern) // 20)
    return _for_cel(pattern, "").search(text) is not None


def find(meter: Meter, text: str, pattern: str) -> str:
    """The first match, or the empty text. Raises Fault."""
    meter.work(len(text) // 500 + len(pattern) // 20)
    found = _for_cel(pattern, "Illegal regex: ").search(text)
    return found.group() or "" if found is not None else ""


def find_all(meter: Meter, text: str, pattern: str, limit: int = -1) -> list[str]:
    """All matches that do not overlap, at most ``limit`` of them if it is not negative. Raises Fault."""
    meter.work(len(text) // 500 + len(pattern) // 20)
    found: list[str] = []
    for match in _for_cel(pattern, "Illegal regex: ").finditer(text):
        if len(found) == limit:
            break
        found.append(match.group() or "")
        meter.work(4)
    return found


LIBRARY: Final[Library] = {
    "find": (metered(member("string_find_string", (STRING, STRING), STRING, find)),),
    "findAll": (
        metered(member("string_find_all_string", (STRING, STRING), list_of(STRING), find_all)),
        metered(member("string_find_all_string_int", (STRING, STRING, INT), list_of(STRING), find_all)),
    ),
}
