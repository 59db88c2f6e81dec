"""Roles and bindings, signing requests, flow control, devices, and events as events.k8s.io has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.validation.meta import path_segment
from polder.api.validation.rules import (
    Rules,
    between,
    every,
    fixed,
    least,
    required,
    unique,
    validate_selector,
)
from polder.api.validation.scheduling import validate_node_selector
from polder.api.validation.storage import driver_name

_SPEC: Final = Field("spec")
_RBAC: Final = "rbac.authorization.k8s.io"
_FLOW: Final = "flowcontrol.apiserver.k8s.io"


# --- rbac -------------------------------------------------------------------------------------------------------------


def validate_policy_rule(rule: Raw, at: Field, *, namespaced: bool) -> Iterator[FieldError]:
    """A PolicyRule: verbs on resources, or on URLs."""
    if not rule.get("verbs"):
        yield (at / "verbs").required("verbs must contain at least one value")
    if urls := rule.get("nonResourceURLs"):
        if namespaced:
            why = "namespaced rules cannot apply to non-resource URLs"
            yield (at / "nonResourceURLs").invalid(urls, why)
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            why = "rules cannot apply to both regular resources and non-resource URLs"
            yield (at / "nonResourceURLs").invalid(urls, why)
        return
    if not rule.get("apiGroups"):
        yield (at / "apiGroups").required("resource rules must supply at least one api group")
    if not rule.get("resources"):
        yield (at / "resources").required("resource rules must supply at least one resource")


def _rules(*, namespaced: bool) -> Rules:
    def check(role: Raw) -> Iterator[FieldError]:
        for number, rule in enumerate(role.get("rules") or ()):
            yield from validate_policy_rule(rule, Field("rules")[number], namespaced=namespaced)
        for number, selector in enumerate((role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()):
            at = (Field("aggregationRule") / "clusterRoleSelectors")[number]
            yield from validate_selector(selector, at)
        if role.get("aggregationRule") is not None and not role["aggregationRule"].get("clusterRoleSelectors"):
            yield (Field("aggregationRule") / "clusterRoleSelectors").required(
                "at least one clusterRoleSelector required if aggregationRule is non-nil"
            )

    return Rules((check,))


def _binding(*, namespaced: bool) -> Rules:
    kinds = ("Role", "ClusterRole") if namespaced else ("ClusterRole",)

    def check(binding: Raw) -> Iterator[FieldError]:
        role, at = binding.get("roleRef") or {}, Field("roleRef")
        if role.get("apiGroup") != _RBAC:
            yield (at / "apiGroup").not_supported(role.get("apiGroup", ""), (_RBAC,))
        if role.get("kind") not in kinds:
            yield (at / "kind").not_supported(role.get("kind", ""), kinds)
        if not role.get("name"):
            yield (at / "name").required()
        yield from ((at / "name").invalid(role["name"], said) for said in path_segment(role.get("name", "")))
        for number, subject in enumerate(binding.get("subjects") or ()):
            yield from _subject(subject, namespaced, Field("subjects")[number])

    return Rules((check,), (fixed("roleRef", why="cannot change roleRef"),))


def _subject(subject: Raw, namespaced: bool, at: Field) -> Iterator[FieldError]:
    kind, name, group = subject.get("kind", ""), subject.get("name", ""), subject.get("apiGroup", "")
    if not name:
        yield (at / "name").required()
    if kind == "ServiceAccount":
        yield from ((at / "name").invalid(name, said) for said in names.dns_subdomain(name) if name)
        if group:
            yield (at / "apiGroup").not_supported(group, ("",))
        if not namespaced and not subject.get("namespace"):
            yield (at / "namespace").required()
    elif kind in ("User", "Group"):
        if group != _RBAC:
            yield (at / "apiGroup").not_supported(group, (_RBAC,))
    else:
        yield (at / "kind").not_supported(kind, ("ServiceAccount", "User", "Group"))


# --- certificates -----------------------------------------------------------------------------------------------------

_USAGES: Final = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip


def _signing(request: Raw) -> Iterator[FieldError]:
    spec = request.get("spec") or {}
    usages, signer = spec.get("usages") or [], spec.get("signerName", "")
    if not usages:
        yield (_SPEC / "usages").required()
    for number, usage in enumerate(usages):
        if usage not in _USAGES:
            yield (_SPEC / "usages")[number].not_supported(usage, _USAGES)
        if usage in usages[:number]:
            yield (_SPEC / "usages")[number].duplicate(usage)
    at = _SPEC / "signerName"
    domain, slash, path = signer.partition("/")
    if not signer:
        yield at.required()
    elif signer == "kubernetes.io/legacy-unknown":
        yield at.invalid(signer, "the legacy signerName is not allowed via this API version")
    elif not slash or not path or "/" in path:
        yield at.invalid(signer, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
    elif "." not in domain or names.dns_subdomain(domain) or names.dns_subdomain(path):
        yield at.invalid(signer, "should be a domain with at least two segments separated by dots")
    seconds = spec.get("expirationSeconds", 600)
    if seconds < 600:
        why = "may not specify a duration less than 600 seconds (10 minutes)"
        yield (_SPEC / "expirationSeconds").invalid(seconds, why)


# --- flow control -----------------------------------------------------------------------------------------------------


def _schema(schema: Raw) -> Iterator[FieldError]:
    spec, name = schema.get("spec") or {}, (schema.get("metadata") or {}).get("name", "")
    rank, at = spec.get("matchingPrecedence", 0), _SPEC / "matchingPrecedence"
    if rank <= 0:
        yield at.invalid(rank, "must be a positive value")
    if rank > 10000:
        yield at.invalid(rank, "must not be greater than 10000")
    if rank == 1 and name != "exempt":
        yield at.invalid(rank, "only the schema named 'exempt' may have matchingPrecedence 1")
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in ("ByNamespace", "ByUser"):
        yield (_SPEC / "distinguisherMethod" / "type").not_supported(method, ("ByNamespace", "ByUser"))
    level, where = (spec.get("priorityLevelConfiguration") or {}).get("name", ""), _SPEC / "priorityLevelConfiguration"
    if not level:
        yield (where / "name").required("must reference a priority level")
    else:
        yield from ((where / "name").invalid(level, said) for said in names.dns_subdomain(level))
    for number, rule in enumerate(spec.get("rules") or ()):
        yield from _flow_rule(rule, (_SPEC / "rules")[number])


_KINDS: Final = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}


def _flow_rule(rule: Raw, at: Field) -> Iterator[FieldError]:
    if not rule.get("subjects"):
        yield (at / "subjects").required("subjects must contain at least one value")
    for number, subject in enumerate(rule.get("subjects") or ()):
        yield from _flow_subject(subject, (at / "subjects")[number])
    if not rule.get("resourceRules") and not rule.get("nonResourceRules"):
        yield at.required("at least one of resourceRules and nonResourceRules has to be non-empty")
    for number, item in enumerate(rule.get("resourceRules") or ()):
        yield from _flow_resources(item, (at / "resourceRules")[number])
    for number, item in enumerate(rule.get("nonResourceRules") or ()):
        for name in ("verbs", "nonResourceURLs"):
            if not item.get(name):
                why = f"{name} must contain at least one value"
                yield ((at / "nonResourceRules")[number] / name).required(why)


def _flow_subject(subject: Raw, at: Field) -> Iterator[FieldError]:
    kind = subject.get("kind", "")
    if kind not in _KINDS:
        yield (at / "kind").not_supported(kind, sorted(_KINDS))
        return
    if not (subject.get(_KINDS[kind]) or {}).get("name"):
        yield (at / _KINDS[kind]).required(f"{_KINDS[kind]} is required when subject kind is '{kind}'")
    for other, field in _KINDS.items():
        if other != kind and subject.get(field) is not None:
            yield (at / field).forbidden(f"{field} is forbidden when subject kind is not '{other}'")


def _flow_resources(item: Raw, at: Field) -> Iterator[FieldError]:
    for name, what in (("verbs", "verbs"), ("apiGroups", "api groups"), ("resources", "resources")):
        values = item.get(name) or []
        if not values:
            yield (at / name).required(f"{name} must contain at least one value")
        elif "*" in values and len(values) > 1:
            yield (at / name).invalid(values, f"if '*' is present, must not specify other {what}")
    if not item.get("namespaces") and not item.get("clusterScope"):
        why = "resource rules that are not cluster scoped must supply at least one namespace"
        yield (at / "namespaces").required(why)


def _level(level: Raw) -> Iterator[FieldError]:
    spec, name = level.get("spec") or {}, (level.get("metadata") or {}).get("name", "")
    kind = spec.get("type", "")
    if (name == "exempt") != (kind == "Exempt"):
        yield (_SPEC / "type").invalid(kind, "must be 'Exempt' if and only if `name` is 'exempt'")
    if kind == "Exempt" and spec.get("limited") is not None:
        yield (_SPEC / "limited").forbidden("must be nil if the type is not Limited")
    elif kind == "Limited":
        if spec.get("exempt") is not None:
            yield (_SPEC / "exempt").forbidden("must be nil if the type is Limited")
        if spec.get("limited") is None:
            yield (_SPEC / "limited").required("must not be empty when type is Limited")
        else:
            yield from _limited(spec["limited"], _SPEC / "limited")
    elif kind not in ("Exempt", "Limited"):
        yield (_SPEC / "type").not_supported(kind, ("Exempt", "Limited"))


def _limited(limited: Raw, at: Field) -> Iterator[FieldError]:
    shares, lent = limited.get("nominalConcurrencyShares", 0), limited.get("lendablePercent", 0)
    if shares < 0:
        yield (at / "nominalConcurrencyShares").invalid(shares, "must be a non-negative integer")
    if not 0 <= lent <= 100:
        yield (at / "lendablePercent").invalid(lent, "must be between 0 and 100, inclusive")
    response, where = limited.get("limitResponse") or {}, at / "limitResponse"
    queuing, kind = response.get("queuing"), response.get("type", "")
    if kind == "Reject" and queuing is not None:
        yield (where / "queuing").forbidden("must be nil if limited.limitResponse.type is not Limited")
    elif kind == "Queue" and queuing is None:
        yield (where / "queuing").required("must not be empty if limited.limitResponse.type is Limited")
    elif kind not in ("Queue", "Reject"):
        yield (where / "type").not_supported(kind, ("Queue", "Reject"))
    if kind == "Queue" and queuing is not None:
        for name in ("queueLengthLimit", "queues", "handSize"):
            if queuing.get(name, 0) <= 0:
                yield (where / "queuing" / name).invalid(queuing.get(name, 0), "must be positive")
        if queuing.get("handSize", 0) > queuing.get("queues", 0):
            why = f"should not be greater than queues ({queuing.get('queues', 0)})"
            yield (where / "queuing" / "handSize").invalid(queuing["handSize"], why)


# --- devices ----------------------------------------------------------------------------------------------------------


def _claim_spec(spec: Raw, at: Field) -> Iterator[FieldError]:
    devices, where = spec.get("devices") or {}, at / "devices"
    for number, request in enumerate(devices.get("requests") or ()):
        item, name = (where / "requests")[number], request.get("name", "")
        yield from ((item / "name").invalid(name, said) for said in names.dns_label(name))
        forms = [form for form in ("exactly", "firstAvailable") if request.get(form)]
        if len(forms) != 1:
            yield item.required("exactly one of `exactly` or `firstAvailable` is required")
        for form in [request["exactly"]] if request.get("exactly") else []:
            if not form.get("deviceClassName"):
                yield (item / "exactly" / "deviceClassName").required()
            if form.get("allocationMode") not in ("All", "ExactCount"):
                modes = ("All", "ExactCount")
                yield (item / "exactly" / "allocationMode").not_supported(form.get("allocationMode", ""), modes)


def _slice(piece: Raw) -> Iterator[FieldError]:
    spec = piece.get("spec") or {}
    yield from driver_name(spec.get("driver", ""), _SPEC / "driver")
    if not (spec.get("pool") or {}).get("name"):
        yield (_SPEC / "pool" / "name").required()
    places = [name for name in ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection") if spec.get(name)]
    if len(places) != 1:
        why = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
        yield _SPEC.required(why) if not places else _SPEC.invalid(None, why)
    if spec.get("nodeSelector"):
        yield from validate_node_selector(spec["nodeSelector"], _SPEC / "nodeSelector")
    for number, device in enumerate(spec.get("devices") or ()):
        at = (_SPEC / "devices")[number] / "name"
        yield from (at.invalid(device.get("name", ""), said) for said in names.dns_label(device.get("name", "")))


def _class_selectors(spec: Raw, at: Field) -> Iterator[FieldError]:
    for number, selector in enumerate(spec.get("selectors") or ()):
        if not ((selector.get("cel") or {}).get("expression")):
            yield ((at / "selectors")[number] / "cel" / "expression").required()


# --- events -----------------------------------------------------------------------------------------------------------

_EVENT_TEXTS: Final = ("reportingInstance", "action", "reason")


def validate_new_event(event: Raw) -> Iterator[FieldError]:
    """An event of the new form (it has ``eventTime``), in the stored form: core/v1."""
    if event.get("eventTime") is None:
        return
    reporter = event.get("reportingComponent", "")
    if not reporter:
        yield Field("reportingController").required()
    yield from (Field("reportingController").invalid(reporter, said) for said in names.qualified_name(reporter))
    for name in _EVENT_TEXTS:
        if not event.get(name):
            yield Field(name).required()
        elif len(event[name]) > 128:
            yield Field(name).invalid("", "can have at most 128 characters")
    if len(event.get("message", "")) > 1024:
        yield Field("message").invalid("", "can have at most 1024 characters")


def validate_strict_event(event: Raw) -> Iterator[FieldError]:
    """What events.k8s.io/v1 asks of an event besides, in the stored form: core/v1."""
    if event.get("eventTime") is None:
        yield Field("eventTime").required()
    if event.get("type") not in ("Normal", "Warning"):
        yield Field("type").invalid("", f"has invalid value: {event.get('type', '')}")
    for name in ("firstTimestamp", "lastTimestamp", "count", "source"):
        if event.get(name):
            yield Field(name).invalid("", "needs to be unset")
    yield from _series(event)


def _series(event: Raw) -> Iterator[FieldError]:
    series = event.get("series")
    if series is None:
        return
    if series.get("count", 0) < 2:
        yield Field("series.count").invalid("", "should be at least 2")
    if not series.get("lastObservedTime"):
        yield Field("series.lastObservedTime").required()


_EVENT_KEPT: Final = fixed(
    "involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "type", "eventTime",
    "action", "related", "reportingComponent", "reportingInstance",
)  # fmt: skip


def validate_strict_event_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """Only the series changes."""
    if new.get("series") != old.get("series"):
        yield from _series(new)
    yield from _EVENT_KEPT(new, old)


PLATFORM: Final[dict[str, Rules]] = {
    f"roles.{_RBAC}": _rules(namespaced=True),
    f"clusterroles.{_RBAC}": _rules(namespaced=False),
    f"rolebindings.{_RBAC}": _binding(namespaced=True),
    f"clusterrolebindings.{_RBAC}": _binding(namespaced=False),
    "certificatesigningrequests.certificates.k8s.io": Rules((_signing,), (fixed("spec"),)),
    f"flowschemas.{_FLOW}": Rules((_schema,)),
    f"prioritylevelconfigurations.{_FLOW}": Rules(
        (_level, least("spec.exempt?.nominalConcurrencyShares"), between("spec.exempt?.lendablePercent", 0, 100))
    ),
    "resourceclaims.resource.k8s.io": Rules(
        (every("spec", _claim_spec), unique("spec.devices?.requests", "name")), (fixed("spec"),)
    ),
    "resourceclaimtemplates.resource.k8s.io": Rules((every("spec.spec", _claim_spec),), (fixed("spec"),)),
    "deviceclasses.resource.k8s.io": Rules((every("spec", _class_selectors),)),
    "resourceslices.resource.k8s.io": Rules(
        (required("spec.driver"), _slice, unique("spec.devices", "name")),
        (fixed("spec.driver", "spec.pool.name", "spec.nodeName"),),
    ),
}
STRICT_EVENTS: Final = Rules((), (validate_strict_event_update,))
"""Changes of events through events.k8s.io; ``validate_strict_event`` is for new ones."""
