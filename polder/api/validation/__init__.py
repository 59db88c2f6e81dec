"""Rules for whole objects, a module per area. All take objects that were conformed and defaulted, and change nothing."""

from __future__ import annotations

from typing import Final

from polder.api.addresses import validate_external_address, validate_pool
from polder.api.errors import FieldError
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.validation import cluster, config, discovery, networks, pods, services
from polder.api.validation.clusterpolicies import CLUSTER_POLICIES
from polder.api.validation.jobs import JOBS
from polder.api.validation.limits import LIMITS
from polder.api.validation.meta import validate_meta, validate_meta_update
from polder.api.validation.platform import PLATFORM, STRICT_EVENTS, validate_new_event, validate_strict_event
from polder.api.validation.registration import REGISTRATION
from polder.api.validation.rules import Change, Check, Rules
from polder.api.validation.scaling import SCALING
from polder.api.validation.storage import STORAGE
from polder.api.validation.traffic import TRAFFIC
from polder.api.validation.workloads import WORKLOADS


def _of(check: Check, change: Change | None = None) -> Rules:
    return Rules((check,), (change,) if change else ())


_RULES: Final[dict[str, Rules]] = {
    "pods": _of(pods.validate_pod, pods.validate_pod_update),
    "services": _of(services.validate_service, services.validate_service_update),
    "namespaces": _of(cluster.validate_namespace),
    "nodes": _of(cluster.validate_node, cluster.validate_node_update),
    "events": Rules((cluster.validate_event, validate_new_event)),
    "leases.coordination.k8s.io": _of(cluster.validate_lease),
    "configmaps": _of(config.validate_config_map, config.validate_config_map_update),
    "secrets": _of(config.validate_secret, config.validate_secret_update),
    "endpointslices.discovery.k8s.io": _of(discovery.validate_slice, discovery.validate_slice_update),
    "tenants.polder.dev": _of(networks.validate_tenant, networks.validate_tenant_update),
    "networks.polder.dev": _of(networks.validate_network, networks.validate_network_update),
    "segments.polder.dev": _of(networks.validate_segment, networks.validate_fixed_spec),
    "ports.polder.dev": _of(networks.validate_port, networks.validate_port_update),
    "addresses.polder.dev": _of(networks.validate_address, networks.validate_fixed_spec),
    "addresspools.polder.dev": _of(validate_pool),
    "externaladdresses.polder.dev": _of(validate_external_address, networks.validate_fixed_spec),
    **WORKLOADS,
    **JOBS,
    **SCALING,
    **TRAFFIC,
    **CLUSTER_POLICIES,
    **STORAGE,
    **LIMITS,
    **REGISTRATION,
    **PLATFORM,
}
_NONE: Final = Rules()


def rules_of(kind: Kind) -> list[Rules]:
    """The rules of a built-in kind besides those of its metadata."""
    found = [_RULES.get(kind.resource, _NONE)]
    return [*found, STRICT_EVENTS] if _is_strict(kind) else found


def _is_strict(kind: Kind) -> bool:
    return kind.qualified == "events.events.k8s.io"


def validate_create(kind: Kind, obj: Raw) -> list[FieldError]:
    """What is wrong with a new object, metadata first; its name must be made already."""
    found = list(validate_meta(kind, obj.get("metadata") or {}))
    for rules in rules_of(kind):
        for check in rules.checks:
            found += check(obj)
    if _is_strict(kind):
        found += validate_strict_event(obj)
    return found


def validate_update(kind: Kind, new: Raw, old: Raw) -> list[FieldError]:
    """What is wrong with the change of an object, in itself or compared to what stood before."""
    found = list(validate_meta_update(kind, new.get("metadata") or {}, old.get("metadata") or {}))
    for rules in rules_of(kind):
        for check in rules.checks:
            found += check(new)
        for change in rules.changes:
            found += change(new, old)
    return found
