"""Rules of roles: which requests they allow, which rules cover which others. Pure.

Source: the documentation of RBAC in Kubernetes; sentences as its server gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from polder.api.clauses import meets
from polder.api.meta import LabelSelector, Struct

ALL = "*"


class PolicyRule(Struct, frozen=True, kw_only=True):
    """rbac.authorization.k8s.io/v1 PolicyRule."""

    verbs: tuple[str, ...] | None = None
    api_groups: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None
    resource_names: tuple[str, ...] | None = None
    non_resource_urls: tuple[str, ...] | None = msgspec.field(default=None, name="nonResourceURLs")


class AggregationRule(Struct, frozen=True, kw_only=True):
    """Which ClusterRoles' rules are gathered."""

    cluster_role_selectors: tuple[LabelSelector, ...] | None = None


class RoleRef(Struct, frozen=True, kw_only=True):
    """What a binding grants."""

    api_group: str = ""
    kind: str = ""
    name: str = ""


class Subject(Struct, frozen=True, kw_only=True):
    """Whom a binding grants it to: User, Group or ServiceAccount."""

    kind: str = ""
    api_group: str = ""
    name: str = ""
    namespace: str = ""

    def key(self, namespace: str) -> str:
        """Under which of its ``identity_keys`` an identity finds what the subject is granted; empty if it can be nobody."""
        if self.kind == "User":
            return f"u:{self.name}"
        if self.kind == "Group":
            return f"g:{self.name}"
        place = self.namespace or namespace
        return f"u:system:serviceaccount:{place}:{self.name}" if self.kind == "ServiceAccount" and place else ""

    def words(self, namespace: str) -> str:
        """As reasons name it."""
        if self.kind == "ServiceAccount":
            return f'{self.kind} "{self.name}/{self.namespace or namespace}"'
        return f'{self.kind} "{self.name}"'


def identity_keys(name: str, groups: Iterable[str]) -> tuple[str, ...]:
    """What ``Subject.key`` may be for an identity. A user cannot be named so that it is a group."""
    return (f"u:{name}", *(f"g:{group}" for group in groups))


@dataclass(frozen=True, slots=True)
class Attributes:
    """What of a request rules look at. ``resource`` is empty for a path that is no resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    path: str = ""

    @property
    def combined(self) -> str:
        """``resource/subresource``, or the resource alone."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def allows(rule: PolicyRule, what: Attributes) -> bool:
    """Whether one rule allows a request."""
    if not _has(rule.verbs, what.verb):
        return False
    if not what.resource:
        return any(url_covers(url, what.path) for url in rule.non_resource_urls or ())
    return (
        _has(rule.api_groups, what.group)
        and _resource_matches(rule.resources or (), what)
        and (not rule.resource_names or what.name in rule.resource_names)
    )


def _has(words: tuple[str, ...] | None, word: str) -> bool:
    return words is not None and (word in words or ALL in words)


def _resource_matches(resources: tuple[str, ...], what: Attributes) -> bool:
    if ALL in resources or what.combined in resources:
        return True
    return bool(what.subresource) and f"*/{what.subresource}" in resources


def url_covers(pattern: str, path: str) -> bool:
    """Whether a path is the pattern's, which may end with ``*``."""
    return pattern == path or (pattern.endswith(ALL) and path.startswith(pattern.rstrip(ALL)))


class Rules:
    """The rules of one role, found by what is asked for rather than one after the other."""

    __slots__ = ("_exact", "_loose", "_urls", "rules")

    def __init__(self, rules: Iterable[PolicyRule]) -> None:
        self.rules = tuple(rules)
        self._exact: dict[tuple[str, str], list[PolicyRule]] = {}
        self._loose: list[PolicyRule] = []
        self._urls = [rule for rule in self.rules if rule.non_resource_urls]
        for rule in self.rules:
            groups, resources = rule.api_groups or (), rule.resources or ()
            if ALL in groups or any(r.startswith(ALL) for r in resources):
                self._loose.append(rule)
                continue
            for group in groups:
                for resource in resources:
                    self._exact.setdefault((group, resource), []).append(rule)

    def allow(self, what: Attributes) -> bool:
        """Whether one of them allows a request."""
        if not what.resource:
            return any(allows(rule, what) for rule in self._urls)
        exact = self._exact.get((what.group, what.combined))
        if exact is not None and any(allows(rule, what) for rule in exact):
            return True
        return any(allows(rule, what) for rule in self._loose)


def combinations(rule: PolicyRule) -> int:
    """How many rules ``breakdown`` makes: the product of lists that somebody wrote."""
    objects = len(rule.api_groups or ()) * len(rule.resources or ()) * max(len(rule.resource_names or ()), 1)
    return len(rule.verbs or ()) * (objects + len(rule.non_resource_urls or ()))


def breakdown(rule: PolicyRule) -> list[PolicyRule]:
    """Equal rules of one verb and one group, resource and name, or one path, each."""
    found = []
    for verb in rule.verbs or ():
        for group in rule.api_groups or ():
            for resource in rule.resources or ():
                names: Sequence[str | None] = rule.resource_names or (None,)
                found += [_small(verb, group, resource, name) for name in names]
        found += [PolicyRule(verbs=(verb,), non_resource_urls=(url,)) for url in rule.non_resource_urls or ()]
    return found


def _small(verb: str, group: str, resource: str, name: str | None) -> PolicyRule:
    names = None if name is None else (name,)
    return PolicyRule(verbs=(verb,), api_groups=(group,), resources=(resource,), resource_names=names)


class Held:
    """Rules that somebody has, for asking which others they cover."""

    def __init__(self, rules: Sequence[PolicyRule]) -> None:
        self._paths = [r for r in rules if r.non_resource_urls]
        self._objects = [r for r in rules if r.resources]

    def covers(self, small: PolicyRule) -> bool:
        """Whether one of the rules covers one that ``breakdown`` made."""
        verb = (small.verbs or ("",))[0]
        if small.non_resource_urls:
            path = small.non_resource_urls[0]
            return any(_has(r.verbs, verb) and any(url_covers(u, path) for u in r.non_resource_urls or ())
                       for r in self._paths)  # fmt: skip
        group, resource = (small.api_groups or ("",))[0], (small.resources or ("",))[0]
        return any(
            _has(rule.verbs, verb)
            and _has(rule.api_groups, group)
            and _holds_resource(rule.resources or (), resource)
            and _holds_names(rule.resource_names, small.resource_names)
            for rule in self._objects
        )


def _holds_resource(held: tuple[str, ...], wanted: str) -> bool:
    if ALL in held or wanted in held:
        return True
    _, slash, subresource = wanted.partition("/")
    return bool(slash) and f"*/{subresource}" in held


def _holds_names(held: tuple[str, ...] | None, wanted: tuple[str, ...] | None) -> bool:
    return not held or (bool(wanted) and set(wanted or ()) <= set(held))


def compact(rules: Iterable[PolicyRule]) -> list[str]:
    """Small rules, those that differ by verb alone put together, as refusals show them, in their order."""
    verbs: dict[tuple[object, ...], list[str]] = {}
    alone: list[str] = []
    for rule in rules:
        if rule.non_resource_urls:
            alone.append(_words(rule))
            continue
        verbs.setdefault((rule.api_groups, rule.resources, rule.resource_names), []).extend(rule.verbs or ())
    for (groups, resources, names), said in verbs.items():
        together = {"api_groups": groups, "resources": resources, "resource_names": names, "verbs": tuple(said)}
        alone.append(_words(msgspec.structs.replace(PolicyRule(), **together)))
    return sorted(alone)


def _words(rule: PolicyRule) -> str:
    parts = (
        ("APIGroups", rule.api_groups),
        ("Resources", rule.resources),
        ("NonResourceURLs", rule.non_resource_urls),
        ("ResourceNames", rule.resource_names),
        ("Verbs", rule.verbs),
    )
    return "{" + ", ".join(f"{name}:{quoted_list(words)}" for name, words in parts if words) + "}"


def quoted_list(words: Iterable[str]) -> str:
    """``["a" "b"]``."""
    return "[" + " ".join(f'"{word}"' for word in words) + "]"


def gathers(rule: AggregationRule, labels: Mapping[str, str]) -> bool:
    """Whether an aggregated role takes the rules of a ClusterRole with these labels."""
    return any(_selects(selector, labels) for selector in rule.cluster_role_selectors or ())


def _selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in (selector.match_labels or {}).items()):
        return False
    return all(meets(r.operator, labels.get(r.key), r.values or ()) for r in selector.match_expressions or ())
