"""From the claims of an issuer's token to name, groups, UID and extra, as AuthenticationConfiguration
(apiserver.config.k8s.io/v1) says: by claims with prefixes, or by CEL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polder.api.cel import Budget, CelError, CelType, Program, compile_cel
from polder.api.cel.types import BOOL, DYN, OBJECT, STRING
from polder.api.meta import Raw
from polder.apiserver.authn_method import CredentialError
from polder.base.errors import PermanentError

CLAIMS: Mapping[str, CelType] = {"claims": OBJECT}
USER: Mapping[str, CelType] = {"user": OBJECT}
COST_LIMIT = 1_000_000


class MappingError(PermanentError):
    """A mapping in the configuration that cannot be used; says which field."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from: a claim, with a prefix, or an expression. Neither: there is no such value."""

    claim: str = ""
    prefix: str = ""
    expression: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold: a claim has a value, or an expression over the claims (or the user) is true."""

    claim: str = ""
    value: str = ""
    expression: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Mappings:
    """How claims become a user."""

    username: Source
    groups: Source = Source()
    uid: Source = Source()
    extra: tuple[tuple[str, str], ...] = ()
    claim_rules: tuple[Rule, ...] = ()
    user_rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """Who a token says it is for."""

    name: str
    groups: tuple[str, ...]
    uid: str
    extra: Mapping[str, tuple[str, ...]]


class Mapper:
    """The mappings, compiled. Raises MappingError for an expression that cannot be."""

    def __init__(self, mappings: Mappings) -> None:
        self._mappings = mappings
        self._programs: dict[tuple[str, str], Program] = {}
        for name, source, kind in (("username", mappings.username, STRING), ("groups", mappings.groups, DYN),
                                   ("uid", mappings.uid, STRING)):  # fmt: skip
            if source.expression:
                self._compile(f"claimMappings.{name}", source.expression, CLAIMS, kind)
        for key, expression in mappings.extra:
            self._compile(f"claimMappings.extra[{key}]", expression, CLAIMS, DYN)
        for rule in mappings.claim_rules:
            if rule.expression:
                self._compile("claimValidationRules", rule.expression, CLAIMS, BOOL)
        for rule in mappings.user_rules:
            self._compile("userValidationRules", rule.expression, USER, BOOL)

    def _compile(self, field: str, expression: str, over: Mapping[str, CelType], kind: CelType) -> None:
        try:
            self._programs["user" if over is USER else "claims", expression] = compile_cel(
                expression, over, None if kind in {DYN, STRING} else kind
            )
        except CelError as error:
            raise MappingError(f"{field}: {error}") from error

    def user(self, claims: Raw) -> User:
        """The user. Raises CredentialError where the claims do not say one, or break a rule."""
        budget = Budget(COST_LIMIT)
        username = self._text("username", self._mappings.username, claims, budget)
        if not username:
            raise CredentialError("the token names no user")
        if self._mappings.username.claim == "email" and claims.get("email_verified", True) is not True:
            raise CredentialError("the token's email address is not verified")
        groups = self._groups(claims, budget)
        uid = self._text("uid", self._mappings.uid, claims, budget)
        extra = {}
        for key, expression in self._mappings.extra:
            values = _texts(f"extra {key}", self._run("claims", expression, claims, budget))
            if values:
                extra[key] = values
        found = User(username, groups, uid, extra)
        self._check(found, claims, budget)
        return found

    def _run(self, over: str, expression: str, value: Mapping[str, Any], budget: Budget) -> Any:
        try:
            return self._programs[over, expression].run({over: value}, budget)
        except CelError as error:
            raise CredentialError(f"the expression {expression!r} fails: {error}") from error

    def _text(self, what: str, source: Source, claims: Raw, budget: Budget) -> str:
        if source.expression:
            found, prefix = self._run("claims", source.expression, claims, budget), ""
        elif source.claim:
            found, prefix = claims.get(source.claim), source.prefix
        else:
            return ""
        if not isinstance(found, str) or not found:
            raise CredentialError(f"the token's {what} is no text")
        return prefix + found

    def _groups(self, claims: Raw, budget: Budget) -> tuple[str, ...]:
        source = self._mappings.groups
        if source.expression:
            return _texts("groups", self._run("claims", source.expression, claims, budget))
        if not source.claim or source.claim not in claims:
            return ()
        return tuple(source.prefix + group for group in _texts("groups", claims[source.claim]))

    def _check(self, user: User, claims: Raw, budget: Budget) -> None:
        for rule in self._mappings.claim_rules:
            if rule.expression:
                self._check_true("claims", rule, claims, budget)
            elif claims.get(rule.claim) != rule.value:
                raise CredentialError(f"the token's claim {rule.claim} is not as required")
        shown = {"username": user.name, "uid": user.uid, "groups": list(user.groups),
                 "extra": {key: list(values) for key, values in user.extra.items()}}  # fmt: skip
        for rule in self._mappings.user_rules:
            self._check_true("user", rule, shown, budget)

    def _check_true(self, over: str, rule: Rule, value: Mapping[str, Any], budget: Budget) -> None:
        if self._run(over, rule.expression, value, budget) is not True:
            raise CredentialError(rule.message or f"validation expression {rule.expression!r} failed")


def _texts(what: str, value: object) -> tuple[str, ...]:
    """A text or a list of texts; empty ones are left out."""
    if value is None or isinstance(value, str):
        return (value,) if value else ()
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise CredentialError(f"the token's {what} are no texts")
    return tuple(v for v in value if v)
