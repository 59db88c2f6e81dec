"""Tokens to the syntax tree. Source: CEL's language definition, "Syntax"; messages in upstream's form."""

from __future__ import annotations

from typing import Final

from polder.api.cel.ast import Call, Expr, Ident, ListNode, Literal, MapNode, Select, StructNode
from polder.api.cel.lexer import Token, bytes_value, string_value, tokens
from polder.api.cel.macros import expand
from polder.api.cel.source import Problem
from polder.api.cel.values import UInt

DEPTH_LIMIT: Final = 100
"""Nesting of an expression. Upstream's is 250; no rule that a person can read comes near either."""
_START: Final = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)
_LEVELS: Final = {"<": 1, "<=": 1, ">": 1, ">=": 1, "==": 1, "!=": 1, "in": 1, "+": 2, "-": 2, "*": 3, "/": 3, "%": 3}
RESERVED: Final = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_CONSTANTS: Final = {"true": True, "false": False, "null": None}
INT_MIN, INT_MAX, UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1


def parse(text: str) -> Expr:
    """The tree of an expression. Raises Problem."""
    parser = _Parser(tokens(text))
    node = parser.expression()
    if parser.token.kind != "end":
        raise parser.unexpected("<EOF>")
    return node


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, found: list[Token]) -> None:
        self._tokens = found
        self._at = 0
        self._depth = 0

    @property
    def token(self) -> Token:
        """The next one."""
        return self._tokens[self._at]

    def unexpected(self, wanted: str) -> Problem:
        """The next token stands where another one must."""
        token = self.token
        return Problem(token.at, f"Syntax error: mismatched input '{token.text}' expecting {wanted}")

    def _take(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _is(self, text: str) -> bool:
        token = self._tokens[self._at]
        return token.text == text and token.kind in ("op", "ident")

    def _accept(self, text: str) -> bool:
        if self._is(text):
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> Token:
        if not self._is(text):
            raise self.unexpected(f"'{text}'")
        return self._take()

    def expression(self) -> Expr:
        """A whole expression with its conditional."""
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise Problem(self.token.at, f"expression recursion limit exceeded: {DEPTH_LIMIT}")
        found = self._either()
        if self._is("?"):
            at = self._take().at
            yes = self._either()
            self._expect(":")
            found = Call(at, "_?_:_", None, [found, yes, self.expression()])
        self._depth -= 1
        return found

    def _either(self) -> Expr:
        """Terms of ``||``, whose factors are those of ``&&``: both at once, since each level of calls counts."""
        terms: list[Expr] = []
        ors: list[int] = []
        while True:
            factors, ands = [self._binary(1)], []
            while self._is("&&"):
                ands.append(self._take().at)
                factors.append(self._binary(1))
            terms.append(_balanced("_&&_", factors, ands))
            if not self._is("||"):
                return _balanced("_||_", terms, ors)
            ors.append(self._take().at)

    def _binary(self, level: int) -> Expr:
        left = self._unary()
        while True:
            token = self.token
            mine = _LEVELS.get(token.text, 0) if token.kind in ("op", "ident") else 0
            if mine < level:
                return left
            self._at += 1
            right = self._binary(mine + 1)
            name = "@in" if token.text == "in" else f"_{token.text}_"
            left = _shallow(Call(token.at, name, None, [left, right]))

    def _unary(self) -> Expr:
        token = self.token
        if token.kind != "op" or token.text not in "!-":
            return self._postfix(self._primary())
        count = 0
        while self._is(token.text):
            self._at += 1
            count += 1
        after = self.token
        if token.text == "-" and count == 1 and after.kind in ("int", "float"):
            self._at += 1
            return self._postfix(self._number(after, token.at, negative=True))
        operand = self._postfix(self._primary())
        name = "!_" if token.text == "!" else "-_"
        return Call(token.at, name, None, [operand]) if count % 2 else operand

    def _postfix(self, node: Expr) -> Expr:
        while True:
            if self._is("."):
                node = _shallow(self._selected(node))
            elif self._is("["):
                at = self._take().at
                name = "_[?_]" if self._accept("?") else "_[_]"
                index = self.expression()
                self._expect("]")
                node = _shallow(Call(at, name, None, [node, index]))
            else:
                return node

    def _selected(self, node: Expr) -> Expr:
        at = self._take().at
        optional = self._accept("?")
        token = self._take()
        if token.kind == "escaped":
            return Select(at, node, token.text[1:-1], optional=optional)
        if token.kind != "ident":
            self._at -= 1
            raise self.unexpected("IDENTIFIER")
        if self._is("(") and not optional:
            paren = self._take().at
            return expand(Call(paren, token.text, node, self._arguments(")")))
        if token.text in _CONSTANTS or token.text == "in":
            self._at -= 1
            raise self.unexpected("IDENTIFIER")
        return Select(at, node, token.text, optional=optional)

    def _arguments(self, end: str) -> list[Expr]:
        found: list[Expr] = []
        if self._accept(end):
            return found
        while True:
            found.append(self.expression())
            if self._accept(end):
                return found
            self._expect(",")

    def _primary(self) -> Expr:
        token = self._take()
        match token.kind:
            case "int" | "uint" | "float":
                return self._number(token, token.at)
            case "string":
                return Literal(token.at, string_value(token))
            case "bytes":
                return Literal(token.at, bytes_value(token))
            case "ident":
                return self._named(token, "")
        if token.text == "." and self.token.kind == "ident":
            return self._named(self._take(), ".")
        if token.text == "(" and token.kind == "op":
            found = self.expression()
            self._expect(")")
            return found
        if token.text == "[":
            return self._list(token.at)
        if token.text == "{":
            return self._map(token.at)
        self._at -= 1
        raise self.unexpected(_START)

    def _named(self, token: Token, dot: str) -> Expr:
        name = token.text
        if name in _CONSTANTS and not dot:
            return Literal(token.at, _CONSTANTS[name])
        if name == "in":
            self._at -= 1
            raise self.unexpected(_START)
        found = self._struct(dot + name)
        if found is not None:
            return found
        if name in RESERVED:
            raise Problem(token.at, f"reserved identifier: {name}")
        if self._is("("):
            at = self._take().at
            return expand(Call(at, dot + name, None, self._arguments(")")))
        return Ident(token.at, dot + name)

    def _struct(self, name: str) -> Expr | None:
        """``a.b.C{…}``, if that is what comes; otherwise nothing is taken."""
        at = self._at
        while self._is(".") and self._tokens[self._at + 1].kind == "ident":
            name += "." + self._tokens[self._at + 1].text
            self._at += 2
        if not self._is("{"):
            self._at = at
            return None
        node = StructNode(self._take().at, name, [])
        while not self._accept("}"):
            optional = self._accept("?")
            token = self._take()
            if token.kind not in ("ident", "escaped"):
                self._at -= 1
                raise self.unexpected("{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}")
            node.places.append(self._expect(":").at)
            node.entries.append((token.text.strip("`"), self.expression(), optional))
            if not self._accept(",") and not self._is("}"):
                raise self.unexpected("{'}', ','}")
        return node

    def _list(self, at: int) -> Expr:
        items: list[Expr] = []
        optional: set[int] = set()
        while not self._accept("]"):
            if self._accept("?"):
                optional.add(len(items))
            items.append(self.expression())
            if not self._accept(",") and not self._is("]"):
                raise self.unexpected("{']', ','}")
        return ListNode(at, items, frozenset(optional))

    def _map(self, at: int) -> Expr:
        entries: list[tuple[Expr, Expr, bool]] = []
        while not self._accept("}"):
            optional = self._accept("?")
            key = self.expression()
            self._expect(":")
            entries.append((key, self.expression(), optional))
            if not self._accept(",") and not self._is("}"):
                raise self.unexpected("{'}', ','}")
        return MapNode(at, entries)

    def _number(self, token: Token, at: int, *, negative: bool = False) -> Literal:
        text = token.text
        if token.kind == "float":
            value = float(text)
            if value in (float("inf"), float("-inf")):
                raise Problem(at, "invalid double literal")
            return Literal(at, -value if negative else value)
        if token.kind == "uint":
            number = _whole(text[:-1])
            if number > UINT_MAX:
                raise Problem(at, "invalid uint literal")
            return Literal(at, UInt(number))
        number = -_whole(text) if negative else _whole(text)
        if not INT_MIN <= number <= INT_MAX:
            raise Problem(at, "invalid int literal")
        return Literal(at, number)


def _whole(text: str) -> int:
    if len(text) > 40:
        return UINT_MAX + 1
    return int(text, 16) if text.startswith("0x") else int(text)


def _balanced(name: str, terms: list[Expr], places: list[int]) -> Expr:
    """A tree of logarithmic height, as upstream's: long chains must not nest deep."""
    if len(terms) == 1:
        return terms[0]
    middle = (len(terms) + 1) // 2
    left = _balanced(name, terms[:middle], places[: middle - 1])
    right = _balanced(name, terms[middle:], places[middle:])
    return Call(places[middle - 1], name, None, [left, right])


def _shallow(node: Expr) -> Expr:
    """Refuses a chain that nests too deep on its left side (``a+a+a…``)."""
    depth, inner = 0, node
    while depth <= DEPTH_LIMIT:
        if isinstance(inner, Select):
            inner = inner.operand
        elif isinstance(inner, Call) and (inner.target is not None or inner.args):
            inner = inner.target if inner.target is not None else inner.args[0]
        else:
            return node
        depth += 1
    raise Problem(node.at, f"expression recursion limit exceeded: {DEPTH_LIMIT}")
