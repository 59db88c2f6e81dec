"""Whether a registered policy or webhook is meant by a write: rules, namespace and object selectors.

Source: apiserver's admission/plugin/webhook/predicates and admission/plugin/policy/matching.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from polder.api.errors import ApiError, internal, not_found
from polder.api.kinds import Kind
from polder.api.labelselector import matcher_of
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.objects import decode_entry
from polder.store.protocol import Key, Store

NAMESPACES: Final = Key("namespaces", "", "", "").resource
_NAMESPACE_KIND: Final = Kind("", "v1", "Namespace", "namespaces", "namespace", False)


@dataclass(frozen=True, slots=True)
class Match:
    """As which kind a write is meant: the request's own, or another version of the same."""

    kind: Kind


def namespace_of(context: AdmissionContext) -> str:
    """The namespace that counts for selectors; a Namespace is in itself."""
    return context.name if context.resource.kind.resource == NAMESPACES else context.namespace


def object_of(context: AdmissionContext) -> Raw | None:
    """What the request is about: the object written, or that of the subresource."""
    return context.subject.obj if context.subject is not None else context.obj


def old_of(context: AdmissionContext) -> Raw | None:
    """What stood there before."""
    return context.subject.old if context.subject is not None else context.old


def matches_rule(rule: Raw, context: AdmissionContext, kind: Kind) -> bool:
    """Whether one rule names the write, taken as being of ``kind``."""
    return (
        _scope(rule.get("scope") or "*", context)
        and _any(rule.get("operations"), context.operation)
        and _any(rule.get("apiGroups"), kind.group)
        and _any(rule.get("apiVersions"), kind.version)
        and any(_resource(text, kind.plural, context.subresource) for text in rule.get("resources") or [])
        and (not rule.get("resourceNames") or context.name in rule["resourceNames"])
    )


def _scope(scope: str, context: AdmissionContext) -> bool:
    inside = bool(context.namespace) and context.resource.kind.resource != NAMESPACES
    return scope == "*" or (inside if scope == "Namespaced" else not inside)


def _any(items: Iterable[str] | None, asked: str) -> bool:
    return any(item in {"*", asked} for item in items or ())


def _resource(text: str, plural: str, subresource: str) -> bool:
    resource, _, below = text.partition("/")
    return resource in {"*", plural} and below in {"*", subresource}


def match_rules(
    rules: Iterable[Raw], context: AdmissionContext, policy: str, equivalents: Iterable[Kind]
) -> Match | None:
    """As which kind the rules mean the write. ``policy`` is Exact or Equivalent; with the latter a rule for another version
    of the same resource will do, the rules' order first.
    """
    own = context.resource.kind
    listed = list(rules)
    if any(matches_rule(rule, context, own) for rule in listed):
        return Match(own)
    if policy == "Exact":
        return None
    others = [kind for kind in equivalents if kind.api_version != own.api_version]
    for rule in listed:
        for kind in others:
            if matches_rule(rule, context, kind):
                return Match(kind)
    return None


def matches_object(selector: Raw | None, context: AdmissionContext) -> bool:
    """Whether the new or the old object has the labels."""
    matcher = matcher_of(selector or {})
    return not matcher or any(obj is not None and matcher.matches(obj) for obj in (object_of(context), old_of(context)))


async def matches_namespace(selector: Raw | None, context: AdmissionContext, store: Store) -> bool:
    """Whether the namespace has the labels; what is in none is never exempt. Raises ApiError 404."""
    matcher = matcher_of(selector or {})
    if not matcher:
        return True
    itself = context.resource.kind.resource == NAMESPACES
    if not context.namespace and not itself:
        return True
    if itself and not context.subresource and context.obj is not None:
        return matcher.matches(context.obj)
    return matcher.matches(await namespace_object(context, store))


async def namespace_object(context: AdmissionContext, store: Store) -> Raw:
    """The Namespace that the write is in. Raises ApiError 404."""
    name = namespace_of(context)
    entry = await store.get(Key(NAMESPACES, context.tenant, "", name))
    if entry is None:
        raise not_found(_NAMESPACE_KIND, name)
    return decode_entry(entry)


def bad_selector(error: ValueError) -> ApiError:
    """A stored selector that cannot be used."""
    return internal(str(error))
