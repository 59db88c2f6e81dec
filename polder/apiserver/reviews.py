"""Asking what somebody may: SubjectAccessReview and its sisters, group ``authorization.k8s.io``.

Within a tenant they are about that tenant alone: whoever is named is one of it, and what it may elsewhere is not told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from polder.api.conform import conform_to
from polder.api.errors import Field, FieldError, bad_request, invalid, method_not_allowed
from polder.api.kinds import BUILT_IN, Kind
from polder.api.meta import Raw
from polder.api.rbac import PolicyRule
from polder.api.schemas import schema_of
from polder.apiserver.answers import raw_answer
from polder.apiserver.asked_selectors import field_requirements, label_requirements, understood
from polder.apiserver.authz import Authorizer
from polder.apiserver.body import media_type, parse_object, read_body
from polder.apiserver.hooks import Call, Handler
from polder.apiserver.review_subjects import identity_of
from polder.apiserver.types import Identity, RequestInfo, Requirement
from polder.base.ids import EVERY_TENANT, TenantName

BODY_LIMIT: Final = 256 * 1024
BODY_TIME: Final = 30.0
GROUP: Final = "authorization.k8s.io"
_KINDS: Final = {kind.kind: kind for kind in BUILT_IN if kind.group == GROUP}
_AT: Final = Field("spec")
_NO_RESOURCE: Final = " "
"""Asked for where a review leaves the resource out: only a rule for all resources is for it."""


@dataclass(frozen=True, slots=True)
class AccessReviews:
    """Handlers of the four kinds."""

    authorizer: Authorizer

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """By resource, as ``Parts.subresources`` wants them."""
        served: dict[str, Handler] = {
            "SubjectAccessReview": self.subject,
            "LocalSubjectAccessReview": self.local,
            "SelfSubjectAccessReview": self.own,
            "SelfSubjectRulesReview": self.own_rules,
        }
        return {(_KINDS[kind].qualified, ""): handler for kind, handler in served.items()}

    async def subject(self, call: Call) -> web.StreamResponse:
        """What somebody who is named may."""
        kind = _KINDS["SubjectAccessReview"]
        review = await _taken(call, kind)
        _check(kind, [*_subject_problems(review), *_problems(review), *_metadata_problems(review)])
        return await self._decide(call, kind, review, identity_of(call.info.tenant, review["spec"]))

    async def local(self, call: Call) -> web.StreamResponse:
        """The same within the namespace of the path."""
        kind = _KINDS["LocalSubjectAccessReview"]
        review = await _taken(call, kind)
        namespace = review["metadata"].setdefault("namespace", call.info.namespace)
        if namespace != call.info.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        _check(kind, [*_subject_problems(review), *_problems(review), *_local_problems(review, namespace)])
        return await self._decide(call, kind, review, identity_of(call.info.tenant, review["spec"]))

    async def own(self, call: Call) -> web.StreamResponse:
        """What the caller may."""
        kind = _KINDS["SelfSubjectAccessReview"]
        review = await _taken(call, kind)
        _check(kind, [*_problems(review), *_metadata_problems(review)])
        return await self._decide(call, kind, review, call.who)

    async def _decide(self, call: Call, kind: Kind, review: Raw, who: Identity) -> web.StreamResponse:
        what, ignored = _asked(call.info.tenant, review["spec"])
        decision = await self.authorizer.decide(who, what)
        status: Raw = {"allowed": decision.allowed}
        if decision.denied and not decision.allowed:
            status["denied"] = True
        if decision.reason:
            status["reason"] = decision.reason
        if ignored:
            status["evaluationError"] = "; ".join(ignored)
        return _answer(kind, review["metadata"], review["spec"], status)

    async def own_rules(self, call: Call) -> web.StreamResponse:
        """All that the caller may in a namespace, as rules."""
        kind = _KINDS["SelfSubjectRulesReview"]
        review = await _taken(call, kind)
        namespace = review["spec"].get("namespace", "")
        if not namespace:
            raise bad_request("no namespace on request")
        rules, problems = await self.authorizer.rules(call.who, call.info.tenant, namespace)
        status: Raw = {
            "resourceRules": [_resource_rule(rule) for rule in rules if rule.resources],
            "nonResourceRules": [_path_rule(rule) for rule in rules if rule.non_resource_urls],
            "incomplete": bool(problems),
        }
        if problems:
            status["evaluationError"] = ", ".join(problems)
        return _answer(kind, {}, {}, status)


async def _taken(call: Call, kind: Kind) -> Raw:
    """The body of a review, in its kind's form. Raises ApiError 400, 405."""
    if call.info.verb != "create" or call.info.name:
        raise method_not_allowed(kind, call.info.verb)
    if call.info.tenant == EVERY_TENANT:
        raise bad_request(f"a {kind.kind} is for one tenant: name it in the path")
    sent = parse_object(await read_body(call.request, BODY_LIMIT, BODY_TIME), media_type(call.request))
    named = (sent.get("apiVersion") or kind.api_version, sent.get("kind") or kind.kind)
    if named != (kind.api_version, kind.kind):
        raise bad_request(f"{named[1]} in version {named[0]} cannot be handled as a {kind.kind}")
    schema = schema_of(kind)
    review = conform_to(schema, kind, sent).obj if schema is not None else sent
    return {**review, "metadata": dict(review.get("metadata") or {}), "spec": dict(review.get("spec") or {})}


def _answer(kind: Kind, meta: Raw, spec: Raw, status: Raw) -> web.StreamResponse:
    meta = {key: value for key, value in meta.items() if value is not None}
    return raw_answer(
        {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta, "spec": spec, "status": status}, 201
    )


def _check(kind: Kind, problems: list[FieldError]) -> None:
    if problems:
        raise invalid(kind, "", problems)


def _subject_problems(review: Raw) -> Iterable[FieldError]:
    spec = review["spec"]
    if not spec.get("user") and not spec.get("groups"):
        yield (_AT / "user").invalid("", "at least one of user or group must be specified")


def _problems(review: Raw) -> Iterable[FieldError]:
    resource, path = (review["spec"].get(name) for name in ("resourceAttributes", "nonResourceAttributes"))
    if resource is not None and path is not None:
        why = "cannot be specified in combination with resourceAttributes"
        yield (_AT / "nonResourceAttributes").invalid(path, why)
    if resource is None and path is None:
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        yield (_AT / "resourceAttributes").invalid(None, why)
    for name in ("fieldSelector", "labelSelector"):
        selector = (resource or {}).get(name)
        at = _AT / "resourceAttributes" / name
        if selector is not None and selector.get("rawSelector") and selector.get("requirements"):
            why = "may not specified at the same time as requirements"
            yield (at / "rawSelector").invalid(selector["rawSelector"], why)
        elif selector is not None and not selector.get("rawSelector") and not selector.get("requirements"):
            yield (at / "requirements").required(f"when {at} is specified, requirements or rawSelector is required")


def _metadata_problems(review: Raw) -> Iterable[FieldError]:
    if any(value for key, value in review["metadata"].items() if key != "managedFields"):
        yield Field("metadata").invalid(review["metadata"], "must be empty")


def _local_problems(review: Raw, namespace: str) -> Iterable[FieldError]:
    if any(value for key, value in review["metadata"].items() if key not in {"managedFields", "namespace"}):
        yield Field("metadata").invalid(review["metadata"], "must be empty except for namespace")
    resource, path = (review["spec"].get(name) for name in ("resourceAttributes", "nonResourceAttributes"))
    if resource is not None and resource.get("namespace", "") != namespace:
        at = _AT / "resourceAttributes" / "namespace"
        yield at.invalid(resource.get("namespace", ""), "must match metadata.namespace")
    if path is not None:
        yield (_AT / "nonResourceAttributes").invalid(path, "disallowed on this kind of request")


def _asked(tenant: TenantName, spec: Raw) -> tuple[RequestInfo, list[str]]:
    """The request that a review is about, and what of it could not be understood."""
    path = spec.get("nonResourceAttributes")
    if path is not None:
        return RequestInfo(tenant, path.get("verb", ""), path.get("path", "")), []
    asked, ignored = spec["resourceAttributes"], []
    selectors: dict[str, tuple[Requirement, ...]] = {}
    for name, read in (("fieldSelector", field_requirements), ("labelSelector", label_requirements)):
        selector = asked.get(name) or {}
        found, bad = understood(selector, read)
        if bad:
            how = "partially ignored" if found else "ignored"
            ignored.append(f"spec.resourceAttributes.{name} {how} due to parse error")
        selectors[name] = found
    what = RequestInfo(
        tenant,
        asked.get("verb", ""),
        "",
        asked.get("group", ""),
        asked.get("version") or "*",
        asked.get("resource") or _NO_RESOURCE,
        asked.get("subresource", ""),
        asked.get("namespace", ""),
        asked.get("name", ""),
        selectors["fieldSelector"],
        selectors["labelSelector"],
    )
    return what, ignored


def _resource_rule(rule: PolicyRule) -> Raw:
    found = {"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources}
    return {**found, **({"resourceNames": rule.resource_names} if rule.resource_names else {})}


def _path_rule(rule: PolicyRule) -> Raw:
    return {"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}
