"""Text to tokens of CEL. Source: CEL's language definition, "Syntax"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from polder.api.cel.source import Problem

LENGTH_LIMIT: Final = 100_000
"""Characters of an expression, as upstream's parser."""

_STRING: Final = r"""
    [rR](?:\"{3}(?s:.*?)\"{3}|'{3}(?s:.*?)'{3}|\"[^\"\n\r]*\"|'[^'\n\r]*')
  | \"{3}(?:\\(?s:.)|[^\\])*?\"{3} | '{3}(?:\\(?s:.)|[^\\])*?'{3}
  | \"(?:\\.|[^\\\"\n\r])*\" | '(?:\\.|[^\\'\n\r])*'
"""
_TOKENS: Final = re.compile(
    rf"""
    (?P<space>[\t\ \r\n\f]+|//[^\n]*)
  | (?P<bytes>[bB](?:{_STRING}))
  | (?P<string>{_STRING})
  | (?P<float>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
  | (?P<uint>(?:0x[0-9a-fA-F]+|[0-9]+)[uU])
  | (?P<int>0x[0-9a-fA-F]+|[0-9]+)
  | (?P<ident>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<escaped>`[A-Za-z0-9_.\-/\ ]+`)
  | (?P<op>==|!=|<=|>=|&&|\|\||[-+*/%!<>=?:.,()\[\]{{}}])
    """,
    re.VERBOSE,
)
_SIMPLE: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
                  "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?"}  # fmt: skip
_ESCAPE: Final = re.compile(
    r"\\(?:[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.)|$)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its class (``op``, ``ident``, ``int`` …, ``end``), its text and where it begins."""

    kind: str
    text: str
    at: int


def tokens(text: str) -> list[Token]:
    """All tokens and the end. Raises Problem."""
    if len(text) > LENGTH_LIMIT:
        raise Problem(
            0, f"expression code point size exceeds limit: size: {len(text)}, limit {LENGTH_LIMIT}", placed=False
        )
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKENS.match(text, at)
        if match is None:
            raise Problem(at, f"Syntax error: token recognition error at: '{text[at]}'")
        kind = match.lastgroup or ""
        if kind != "space":
            found.append(Token(kind, match.group(), at))
        at = match.end()
    found.append(Token("end", "<EOF>", len(text)))
    return found


def _body(text: str) -> tuple[str, bool]:
    """What stands between the quotes, and whether it is raw."""
    raw = text[0] in "rR"
    text = text[1:] if raw else text
    width = 3 if len(text) >= 6 and text[:3] in ('"""', "'''") else 1
    return text[width:-width].replace("\r\n", "\n").replace("\r", "\n"), raw


def string_value(token: Token) -> str:
    """The value of a string's token. Raises Problem."""
    body, raw = _body(token.text)
    if raw or "\\" not in body:
        return body

    def one(match: re.Match[str]) -> str:
        number = match[1] or match[2] or match[3]
        code = int(number, 16) if number else int(match[4], 8) if match[4] else -1
        if code >= 0:
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise Problem(token.at, "invalid unicode code point")
            return chr(code)
        if match[5] not in _SIMPLE:
            raise Problem(token.at, "unable to unescape string")
        return _SIMPLE[match[5]]

    return _ESCAPE.sub(one, body)


def bytes_value(token: Token) -> bytes:
    """The value of a bytes literal's token. Raises Problem."""
    body, raw = _body(token.text[1:])
    if raw or "\\" not in body:
        return body.encode()
    found, at = bytearray(), 0
    for match in _ESCAPE.finditer(body):
        found += body[at : match.start()].encode()
        at = match.end()
        if match[1]:
            found.append(int(match[1], 16))
        elif match[4]:
            found.append(int(match[4], 8))
        elif match[5] in _SIMPLE:
            found += _SIMPLE[match[5]].encode()
        else:
            raise Problem(token.at, "unable to unescape string")
    return bytes(found + body[at:].encode())
