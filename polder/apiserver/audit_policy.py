"""Which requests are written down, and how much of each: an audit policy as upstream's, with tenants besides.

Source: the documentation of auditing in Kubernetes, group ``audit.k8s.io``, version ``v1``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgspec
import yaml

from polder.api.meta import Struct
from polder.api.rbac import url_covers
from polder.apiserver.types import Identity, RequestInfo
from polder.base.errors import PermanentError

API_VERSION: Final = "audit.k8s.io/v1"
STAGES: Final = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")


class Level(IntEnum):
    """How much of a request is written."""

    NONE = 0
    METADATA = 1
    REQUEST = 2
    REQUEST_RESPONSE = 3

    @property
    def word(self) -> str:
        """As policies and events spell it."""
        return _WORDS[self]


_WORDS: Final = {
    Level.NONE: "None", Level.METADATA: "Metadata", Level.REQUEST: "Request", Level.REQUEST_RESPONSE: "RequestResponse",
}  # fmt: skip
_LEVELS: Final = {word: level for level, word in _WORDS.items()}


class PolicyError(PermanentError):
    """A policy that cannot be used, and why."""


class GroupResources(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resources of one group (``*`` and ``*/x`` and ``x/*`` as upstream); none are all. Names limit it to these objects."""

    group: str = ""
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()


class PolicyRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule; what is empty matches everything. ``tenants`` is Polder's: names, or ``*`` for every one but ``root``."""

    level: str
    users: tuple[str, ...] = ()
    user_groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resources: tuple[GroupResources, ...] = ()
    namespaces: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = msgspec.field(default=(), name="nonResourceURLs")
    tenants: tuple[str, ...] = ()
    omit_stages: tuple[str, ...] = ()
    omit_managed_fields: bool | None = None


class AuditPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first rule that matches a request decides; without one nothing is written."""

    api_version: str = API_VERSION
    kind: str = "Policy"
    metadata: dict[str, object] = {}
    rules: tuple[PolicyRule, ...] = ()
    omit_stages: tuple[str, ...] = ()
    omit_managed_fields: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says of a request."""

    level: Level
    omitted: Sequence[str] = ()
    managed_fields: bool = True


NOTHING: Final = Verdict(Level.NONE)
DEFAULT_POLICY: Final = AuditPolicy(
    omit_stages=("RequestReceived", "ResponseStarted"),
    rules=(
        PolicyRule(level="None", user_groups=("polder:components", "system:nodes")),
        PolicyRule(level="Metadata", user_groups=("polder:platform-admins",), tenants=("*",)),
        PolicyRule(level="None", verbs=("get", "list", "watch", "head")),
        PolicyRule(level="Metadata"),
    ),
)
"""Who changed what, and everything that the platform's administrators do inside tenants; no bodies."""


def parse_policy(text: str) -> AuditPolicy:
    """A policy file (YAML). Raises PolicyError."""
    try:
        policy = msgspec.convert(yaml.safe_load(text), AuditPolicy)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise PolicyError(f"audit policy: {error}") from error
    if (policy.api_version, policy.kind) != (API_VERSION, "Policy"):
        raise PolicyError(f"audit policy: it is {policy.api_version} {policy.kind}, expected {API_VERSION} Policy")
    for number, rule in enumerate(policy.rules):
        if rule.level not in _LEVELS:
            raise PolicyError(f"audit policy: rules[{number}].level {rule.level!r} is none of {', '.join(_LEVELS)}")
        if rule.non_resource_urls and (rule.resources or rule.namespaces):
            raise PolicyError(f"audit policy: rules[{number}] cannot have both paths and resources")
    for stage in {*policy.omit_stages, *(s for rule in policy.rules for s in rule.omit_stages)} - set(STAGES):
        raise PolicyError(f"audit policy: stage {stage!r} is none of {', '.join(STAGES)}")
    return policy


def verdict(policy: AuditPolicy, who: Identity, what: RequestInfo) -> Verdict:
    """What the policy says of a request."""
    for rule in policy.rules:
        if _matches(rule, who, what):
            without = policy.omit_managed_fields if rule.omit_managed_fields is None else rule.omit_managed_fields
            return Verdict(_LEVELS[rule.level], (*policy.omit_stages, *rule.omit_stages), not without)
    return NOTHING


def _matches(rule: PolicyRule, who: Identity, what: RequestInfo) -> bool:
    if rule.users and who.name not in rule.users:
        return False
    if rule.user_groups and not set(rule.user_groups) & set(who.groups):
        return False
    if rule.verbs and what.verb not in rule.verbs:
        return False
    if rule.tenants and what.tenant not in rule.tenants and ("*" not in rule.tenants or what.tenant == "root"):
        return False
    if rule.resources or rule.namespaces:
        return what.is_resource and _resource_matches(rule, what)
    if rule.non_resource_urls:
        return not what.is_resource and any(url == "*" or url_covers(url, what.path) for url in rule.non_resource_urls)
    return True


def _resource_matches(rule: PolicyRule, what: RequestInfo) -> bool:
    if rule.namespaces and what.namespace not in rule.namespaces:
        return False
    return not rule.resources or any(_in_group(resources, what) for resources in rule.resources)


def _in_group(wanted: GroupResources, what: RequestInfo) -> bool:
    if wanted.group not in {what.group, "*"}:
        return False
    if not wanted.resources:
        return True
    if wanted.resource_names and what.name not in wanted.resource_names:
        return False
    combined = f"{what.resource}/{what.subresource}" if what.subresource else what.resource
    forms = {"*", combined}
    if what.subresource:
        forms |= {f"*/{what.subresource}", f"{what.resource}/*"}
    return bool(forms & set(wanted.resources))
