"""Namespaces, nodes, events and leases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polder.api import names, quantity
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.polder import NETWORK_ANNOTATION
from polder.api.validation.clusterpolicies import validate_default_policy
from polder.api.validation.networks import validate_reference

_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def validate_namespace(namespace: Raw) -> Iterator[FieldError]:
    """Finalizers are qualified; the default network is ``namespace/name``, the default policy a word."""
    for number, finalizer in enumerate((namespace.get("spec") or {}).get("finalizers") or ()):
        at = Field("spec.finalizers")[number]
        yield from (at.invalid(finalizer, said) for said in names.qualified_name(finalizer))
    network = ((namespace.get("metadata") or {}).get("annotations") or {}).get(NETWORK_ANNOTATION)
    if network is not None:
        yield from validate_reference(network, Field("metadata.annotations")[NETWORK_ANNOTATION])
    yield from validate_default_policy(namespace.get("metadata") or {})


def validate_node(node: Raw) -> Iterator[FieldError]:
    """Taints are well-formed and unique; capacities are quantities that are not negative."""
    seen: set[tuple[str, str]] = set()
    for number, taint in enumerate((node.get("spec") or {}).get("taints") or ()):
        at = Field("spec.taints")[number]
        key, effect = taint.get("key", ""), taint.get("effect", "")
        yield from ((at / "key").invalid(key, said) for said in names.qualified_name(key))
        value = taint.get("value", "")
        yield from ((at / "value").invalid(value, said) for said in names.label_value(value))
        if not effect:
            yield (at / "effect").required()
        elif effect not in _EFFECTS:
            yield (at / "effect").not_supported(effect, _EFFECTS)
        if (key, effect) in seen:
            yield at.duplicate(f"{key}:{effect}")
        seen.add((key, effect))
    for name in ("capacity", "allocatable"):
        for resource, amount in ((node.get("status") or {}).get(name) or {}).items():
            if quantity.parse(amount).value < 0:
                yield (Field("status") / name)[resource].invalid(amount, "must be greater than or equal to 0")


def validate_node_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """The provider's id is set once."""
    before, after = ((obj.get("spec") or {}).get("providerID", "") for obj in (old, new))
    if before and before != after:
        yield Field("spec.providerID").forbidden('node updates may not change providerID except from "" to valid')


def validate_event(event: Raw) -> Iterator[FieldError]:
    """An event stands in the namespace of what it is about, ``default`` for what has none."""
    namespace = (event.get("metadata") or {}).get("namespace", "")
    about = (event.get("involvedObject") or {}).get("namespace", "")
    if about != namespace and not (not about and namespace in ("default", "kube-system")):
        yield Field("involvedObject.namespace").invalid(about, "does not match event.namespace")


def validate_lease(lease: Raw) -> Iterator[FieldError]:
    """Durations and counters make sense."""
    spec, at = lease.get("spec") or {}, Field("spec")
    if "leaseDurationSeconds" in spec and spec["leaseDurationSeconds"] <= 0:
        yield (at / "leaseDurationSeconds").invalid(spec["leaseDurationSeconds"], "must be greater than 0")
    if spec.get("leaseTransitions", 0) < 0:
        yield (at / "leaseTransitions").invalid(spec["leaseTransitions"], "must be greater than or equal to 0")
