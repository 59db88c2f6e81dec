"""Label and field selectors: upstream's grammars, parsed once, matched against raw objects.

A selector that cannot be parsed, or a field that a kind does not offer, is an ApiError 400.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from polder.api import errors, names
from polder.api.kinds import Kind
from polder.api.meta import Raw

_PUNCTUATION: Final = frozenset({"==", "!=", "=", "!", "(", ")", ",", "<", ">"})
_TOKEN: Final = re.compile(r"\s*(==|!=|=|!|\(|\)|,|<|>|[^\s=!(),<>]+)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One clause about one label. ``operator``: in, notin, exists, !, gt, lt (the equalities are in and notin)."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether the labels satisfy it."""
        found = labels.get(self.key)
        match self.operator:
            case "in":
                return found is not None and found in self.values
            case "notin":
                return found is None or found not in self.values
            case "exists":
                return found is not None
            case "!":
                return found is None
        return self._compares(found)

    def _compares(self, found: str | None) -> bool:
        try:
            number, bound = int(found or ""), int(next(iter(self.values)))
        except ValueError:
            return False
        return number > bound if self.operator == "gt" else number < bound


@dataclass(frozen=True, slots=True)
class LabelMatcher:
    """All requirements must hold; none matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def matches(self, obj: Raw) -> bool:
        """Whether the object's labels satisfy the selector."""
        return not self.requirements or self.matches_labels((obj.get("metadata") or {}).get("labels") or {})

    def matches_labels(self, labels: dict[str, str]) -> bool:
        """Whether these labels satisfy the selector."""
        return all(requirement.matches(labels) for requirement in self.requirements)


class _Parser:
    """Recursive descent over the tokens of a label selector."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            assert found is not None
            self.tokens.append(found[1])
            at = found.end()
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        lexeme = self.peek()
        self.at += 1
        return lexeme

    def selector(self) -> tuple[Requirement, ...]:
        found: list[Requirement] = []
        while self.peek():
            found.append(self.requirement())
            lexeme = self.take()
            if lexeme not in ("", ","):
                raise _bad(f"found '{lexeme}', expected: ',' or 'end of string'")
            if lexeme == "," and not self.peek():
                raise _bad("found '', expected: identifier after ','")
        return tuple(sorted(found, key=lambda requirement: requirement.key))

    def requirement(self) -> Requirement:
        absent = self.peek() == "!"
        if absent:
            self.take()
        key = self.take()
        if not key or key in _PUNCTUATION:
            raise _bad(f"found '{key}', expected: !, identifier, or 'end of string'")
        if absent or self.peek() in ("", ","):
            return _checked(Requirement(key, "!" if absent else "exists"))
        operator = self.take()
        match operator:
            case "=" | "==":
                return _checked(Requirement(key, "in", frozenset({self.value()})))
            case "!=":
                return _checked(Requirement(key, "notin", frozenset({self.value()})))
            case "in" | "notin":
                return _checked(Requirement(key, operator, self.value_set()))
            case "<" | ">":
                return _checked(Requirement(key, "gt" if operator == ">" else "lt", frozenset({self.value()})))
        raise _bad(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")

    def value(self) -> str:
        if self.peek() in ("", ","):
            return ""
        lexeme = self.take()
        if lexeme in _PUNCTUATION:
            raise _bad(f"found '{lexeme}', expected: identifier")
        return lexeme

    def value_set(self) -> frozenset[str]:
        if (lexeme := self.take()) != "(":
            raise _bad(f"found '{lexeme}' expected: '('")
        found: set[str] = set()
        expects = True
        while (lexeme := self.take()) != ")":
            if not lexeme:
                raise _bad("found '', expected: ',' or ')'")
            if lexeme == ",":
                if expects:
                    found.add("")
                expects = True
            elif expects:
                found.add(lexeme)
                expects = False
            else:
                raise _bad(f"found '{lexeme}', expected: ',' or ')'")
        if expects:
            found.add("")
        return frozenset(found)


def _bad(sentence: str) -> errors.ApiError:
    return errors.bad_request(f"unable to parse requirement: {sentence}")


def _bad_value(requirement: Requirement, value: str, why: str) -> errors.ApiError:
    return _bad(f"values[0][{requirement.key}]: Invalid value: {errors.quoted(value)}: {why}")


def _checked(requirement: Requirement) -> Requirement:
    if said := names.qualified_name(requirement.key):
        raise _bad(f"<nil>: Invalid value: {errors.quoted(requirement.key)}: {'; '.join(said)}")
    for value in sorted(requirement.values):
        if requirement.operator in ("gt", "lt"):
            if not re.fullmatch(r"[+-]?\d+", value):
                raise _bad_value(requirement, value, "for 'Gt', 'Lt' operators, the value must be an integer")
        elif said := names.label_value(value):
            raise _bad_value(requirement, value, "; ".join(said))
    return requirement


def parse_labels(text: str) -> LabelMatcher:
    """The selector of a list's or watch's ``labelSelector``. Raises ApiError 400."""
    return LabelMatcher(_Parser(text).selector())


# --- fields -----------------------------------------------------------------------------------------------------------

_COMMON: Final = ("metadata.name", "metadata.namespace")
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "pods": (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
        "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "events": (
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
        "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
        "reportingComponent", "source", "type",
    ),
    "events.events.k8s.io": (
        "regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid", "regarding.apiVersion",
        "regarding.resourceVersion", "regarding.fieldPath", "reason", "reportingController", "type",
    ),
    "replicationcontrollers": ("status.replicas",),
    "jobs.batch": ("status.successful",),
    "certificatesigningrequests.certificates.k8s.io": ("spec.signerName",),
    "resourceslices.resource.k8s.io": ("spec.nodeName", "spec.driver"),
    "ports.polder.dev": ("spec.network", "spec.node", "spec.podUid", "spec.routerOf"),
    "addresses.polder.dev": ("spec.network", "spec.node", "spec.podUid"),
    "networks.polder.dev": ("spec.router",),
}  # fmt: skip
"""Per resource: the fields that may be selected besides the common two."""
_BOOLEANS: Final = frozenset({"spec.hostNetwork", "spec.unschedulable"})
_NUMBERS: Final = {"status.successful": "status.succeeded", "status.replicas": "status.replicas"}
"""Counts, which are 0 where they are missing; upstream calls one by another name."""


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One clause about one field."""

    field: str
    value: str
    negated: bool = False

    def matches(self, obj: Raw) -> bool:
        """Whether the object satisfies it."""
        return (_read(obj, self.field) == self.value) != self.negated


@dataclass(frozen=True, slots=True)
class FieldMatcher:
    """All requirements must hold; none matches everything."""

    requirements: tuple[FieldRequirement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def matches(self, obj: Raw) -> bool:
        """Whether the object satisfies the selector."""
        return all(requirement.matches(obj) for requirement in self.requirements)

    def exact(self, field: str) -> str | None:
        """The one value that ``field`` must have, None when the selector leaves it open."""
        for requirement in self.requirements:
            if requirement.field == field and not requirement.negated:
                return requirement.value
        return None


def _read(obj: Raw, field: str) -> str:
    if field == "source" and "source" in obj:
        return str((obj.get("source") or {}).get("component") or obj.get("reportingComponent") or "")
    found: Any = obj
    for part in _NUMBERS.get(field, field).split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if field in _NUMBERS:
        return str(found or 0)
    if field in _BOOLEANS:
        return "true" if found else "false"
    if isinstance(found, bool):
        return "true" if found else "false"
    return "" if found is None else str(found)


def _split_terms(text: str) -> list[str]:
    """Splits at commas that no backslash protects."""
    terms, term, escaped = [], "", False
    for char in text:
        if char == "," and not escaped:
            terms.append(term)
            term = ""
            continue
        term += char
        escaped = char == "\\" and not escaped
    return [found for found in (*terms, term) if found]


def _unescape(text: str) -> str:
    return re.sub(r"\\([\\,=])", r"\1", text)


def parse_fields(kind: Kind, text: str, declared: Iterable[str] | None = None) -> FieldMatcher:
    """The selector of a list's or watch's ``fieldSelector``. ``declared`` are the fields by which objects of a custom kind
    can be selected. Raises ApiError 400.
    """
    found = []
    offered = (*_COMMON, *_FIELDS.get(kind.qualified, ()), *(declared or ()))
    for term in _split_terms(text):
        split = re.match(r"((?:[^\\=!]|\\.)*)(==|!=|=)(.*)", term, re.DOTALL)
        if split is None:
            raise errors.bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        field, operator, value = split[1], split[2], _unescape(split[3])
        if field not in offered:
            custom = f"field label not supported: {field}"
            raise errors.bad_request(_unknown_field(kind, field) if declared is None else custom)
        found.append(FieldRequirement(field, value, operator == "!="))
    return FieldMatcher(tuple(found))


def _unknown_field(kind: Kind, field: str) -> str:
    if kind.qualified == "jobs.batch":
        return f"field label {errors.quoted(field)} not supported for Job"
    if kind.qualified in _FIELDS and not kind.group.endswith(".dev"):
        return f"field label not supported: {field}"
    return f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'
