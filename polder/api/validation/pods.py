"""Pods: the spec as a whole, and what of it may change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from polder.api import cidr, names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.staticpods import MIRROR, is_mirror
from polder.api.sysctls import validate_sysctls
from polder.api.validation.containers import validate_containers
from polder.api.validation.gates import (
    PLACING,
    may_narrow,
    validate_gated_node,
    validate_gates,
    validate_gates_update,
)
from polder.api.validation.meta import validate_annotations, validate_labels
from polder.api.validation.networks import fixed_pod_annotations, validate_pod_annotations
from polder.api.validation.pod_dns import validate_dns_config
from polder.api.validation.podlevel import validate_policies, validate_whole
from polder.api.validation.scheduling import validate_affinity, validate_spread
from polder.api.validation.security import validate_pod_security
from polder.api.validation.volumes import validate_volumes

_SPEC: Final = Field("spec")
_LONGEST_HOSTNAME: Final = 64
_RESTART: Final = ("Always", "OnFailure", "Never")
_DNS: Final = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_CHANGEABLE: Final = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def validate_pod(pod: Raw) -> Iterator[FieldError]:
    """The whole pod."""
    yield from validate_pod_annotations((pod.get("metadata") or {}).get("annotations") or {})
    spec = pod.get("spec") or {}
    yield from validate_pod_spec(spec, _SPEC)
    yield from validate_gated_node(spec, _SPEC)
    if is_mirror(pod) and not spec.get("nodeName"):
        at, value = Field("annotations")[MIRROR], pod["metadata"]["annotations"][MIRROR]
        yield at.invalid(value, "must set spec.nodeName if mirror pod annotation is set")


def validate_template(template: Raw, at: Field, volumes: Iterable[str] = ()) -> Iterator[FieldError]:
    """A template of pods; ``volumes`` are names of those that its owner adds."""
    meta = template.get("metadata") or {}
    yield from validate_labels(meta.get("labels") or {}, at / "labels")
    yield from validate_annotations(meta.get("annotations") or {}, at / "annotations")
    spec = template.get("spec") or {}
    added = [{"name": name} for name in volumes]
    own = [volume for volume in spec.get("volumes") or () if volume.get("name") not in set(volumes)]
    yield from validate_pod_spec({**spec, "volumes": [*added, *own]} if added else spec, at / "spec")
    if spec.get("ephemeralContainers"):
        yield (at / "spec" / "ephemeralContainers").forbidden("ephemeral containers not allowed in pod template")


def validate_pod_spec(spec: Raw, at: Field) -> Iterator[FieldError]:
    """What a pod and a template have in common."""
    yield from validate_volumes(spec.get("volumes") or [], at / "volumes")
    yield from validate_containers(spec, at)
    yield from _choices(spec, at)
    yield from _names(spec, at)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2**31 - 1:
        yield (at / "activeDeadlineSeconds").invalid(deadline, f"must be between 1 and {2**31 - 1}, inclusive")
    grace = spec.get("terminationGracePeriodSeconds", 0)
    if grace < 0:
        yield (at / "terminationGracePeriodSeconds").invalid(grace, "must be greater than or equal to 0")
    for number, toleration in enumerate(spec.get("tolerations") or ()):
        yield from validate_toleration(toleration, (at / "tolerations")[number])
    yield from validate_labels(spec.get("nodeSelector") or {}, at / "nodeSelector")
    yield from validate_pod_security(spec, at)
    yield from validate_sysctls(spec, at / "securityContext" / "sysctls")
    yield from validate_gates(spec, at)
    yield from validate_whole(spec, at)
    for group in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(group) or ()):
            yield from validate_policies(container, (at / group)[number], spec.get("restartPolicy", ""))
    yield from validate_affinity(spec.get("affinity") or {}, at / "affinity")
    for number, spread in enumerate(spec.get("topologySpreadConstraints") or ()):
        yield from validate_spread(spread, (at / "topologySpreadConstraints")[number])


def _choices(spec: Raw, at: Field) -> Iterator[FieldError]:
    for name, supported in (("restartPolicy", _RESTART), ("dnsPolicy", _DNS)):
        value = spec.get(name, "")
        if not value:
            yield (at / name).required()
        elif value not in supported:
            yield (at / name).not_supported(value, supported)
    if spec.get("dnsPolicy") == "None" and not spec.get("dnsConfig"):
        yield (at / "dnsConfig").required("must provide `dnsConfig` when `dnsPolicy` is None")
    elif spec.get("dnsPolicy") == "None" and not spec["dnsConfig"].get("nameservers"):
        why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        yield (at / "dnsConfig" / "nameservers").required(why)
    yield from validate_dns_config(spec.get("dnsConfig") or {}, at / "dnsConfig")
    policy = spec.get("preemptionPolicy")
    if policy is not None and policy not in ("Never", "PreemptLowerPriority"):
        yield (at / "preemptionPolicy").not_supported(policy, ("Never", "PreemptLowerPriority"))


def _names(spec: Raw, at: Field) -> Iterator[FieldError]:
    for name in ("hostname", "subdomain"):
        if text := spec.get(name):
            yield from ((at / name).invalid(text, said) for said in names.dns_label(text))
    yield from _hostname_override(spec, at / "hostnameOverride")
    for name in ("nodeName", "serviceAccountName", "schedulerName", "priorityClassName", "runtimeClassName"):
        if text := spec.get(name):
            yield from ((at / name).invalid(text, said) for said in names.dns_subdomain(text))
    for number, secret in enumerate(spec.get("imagePullSecrets") or ()):
        if not secret.get("name"):
            yield ((at / "imagePullSecrets")[number] / "name").required()
    for number, alias in enumerate(spec.get("hostAliases") or ()):
        where = (at / "hostAliases")[number]
        if cidr.address(alias.get("ip", "")) is None:
            yield (where / "ip").invalid(alias.get("ip", ""), "must be a valid IPv4 address (e.g. 10.9.8.7)")
        for name in alias.get("hostnames") or ():
            yield from ((where / "hostnames").invalid(name, said) for said in names.dns_subdomain(name))


def _hostname_override(spec: Raw, at: Field) -> Iterator[FieldError]:
    name = spec.get("hostnameOverride")
    if name is None:
        return
    for field in ("setHostnameAsFQDN", "hostNetwork"):
        if spec.get(field):
            yield at.forbidden(f"may not be specified when {field} is true")
    if len(name) > _LONGEST_HOSTNAME:
        yield at.too_long(_LONGEST_HOSTNAME)
    yield from (at.invalid(name, said) for said in names.dns_subdomain(name))


def validate_toleration(toleration: Raw, at: Field) -> Iterator[FieldError]:
    """core/v1 Toleration."""
    key, operator = toleration.get("key", ""), toleration.get("operator", "Equal")
    value, effect = toleration.get("value", ""), toleration.get("effect", "")
    if key:
        yield from ((at / "key").invalid(key, said) for said in names.qualified_name(key))
    elif operator != "Exists":
        why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        yield (at / "operator").invalid(operator, why)
    if operator == "Equal":
        yield from ((at / "operator").invalid(value, said) for said in names.label_value(value))
    elif operator != "Exists":
        yield (at / "operator").not_supported(operator, ("Equal", "Exists"))
    elif value:
        yield (at / "operator").invalid(toleration, "value must be empty when `operator` is 'Exists'")
    if effect and effect not in _EFFECTS:
        yield (at / "effect").not_supported(effect, _EFFECTS)
    if "tolerationSeconds" in toleration and effect != "NoExecute":
        yield (at / "effect").invalid(effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")


# --- changes ----------------------------------------------------------------------------------------------------------


def validate_pod_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """Images, the deadline and additional tolerations may change, nothing else of the spec."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    metas = [(pod.get("metadata") or {}).get("annotations") or {} for pod in (new, old)]
    yield from fixed_pod_annotations(metas[0], metas[1])
    if metas[0].get(MIRROR) != metas[1].get(MIRROR):
        change = "remove or update" if MIRROR in metas[1] else "add"
        yield (Field("metadata") / "annotations")[MIRROR].forbidden(f"may not {change} mirror pod annotation")
    counts = [[len(spec.get(group) or ()) for group in ("initContainers", "containers")] for spec in (after, before)]
    if counts[0] != counts[1]:
        yield (_SPEC / "containers").forbidden("pod updates may not add or remove containers")
        return
    yield from _deadline(after, before)
    yield from _tolerations(after, before)
    yield from validate_gates_update(after, before, _SPEC)
    free = PLACING if may_narrow(after, before) else frozenset()
    changed = sorted(key for key in {*after, *before} - free if _without(after, key) != _without(before, key))
    if changed:
        yield _SPEC.forbidden(f"{_CHANGEABLE}; changed: {', '.join(f'spec.{key}' for key in changed)}")


def _without(spec: Raw, key: str) -> object:
    """A part of the spec, what may change left out."""
    if key in ("activeDeadlineSeconds", "tolerations", "schedulingGates"):
        return None
    value = spec.get(key)
    if key in ("containers", "initContainers"):
        return [{name: part for name, part in container.items() if name != "image"} for container in value or ()]
    return value


def _deadline(after: Raw, before: Raw) -> Iterator[FieldError]:
    old, new, at = (
        before.get("activeDeadlineSeconds"),
        after.get("activeDeadlineSeconds"),
        _SPEC / "activeDeadlineSeconds",
    )
    if old is not None and new is None:
        yield at.invalid(None, "must not update from a positive integer to nil value")
    elif old is not None and new > old:
        yield at.invalid(new, "must be less than or equal to previous value")


def _tolerations(after: Raw, before: Raw) -> Iterator[FieldError]:
    kept = {_but_seconds(toleration) for toleration in after.get("tolerations") or ()}
    for toleration in before.get("tolerations") or ():
        if _but_seconds(toleration) not in kept:
            why = "existing toleration can not be modified except its tolerationSeconds"
            yield (_SPEC / "tolerations").forbidden(why)
            return


def _but_seconds(toleration: Raw) -> frozenset[tuple[str, str]]:
    """A toleration as something that hashes: lists of thousands are compared."""
    return frozenset((key, str(value)) for key, value in toleration.items() if key != "tolerationSeconds")
