"""Rules for whole objects, a module per area. All take objects that were conformed and defaulted, and change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from polder.api.errors import FieldError
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.validation import cluster, config, crds, discovery, networks, pods, services
from polder.api.validation.jobs import JOBS
from polder.api.validation.meta import validate_meta, validate_meta_update
from polder.api.validation.rules import Rules as Declared
from polder.api.validation.workloads import WORKLOADS

Rules = Callable[[Raw], Iterable[FieldError]]
Changes = Callable[[Raw, Raw], Iterable[FieldError]]


def _none(_new: Raw, _old: Raw) -> Iterator[FieldError]:
    return iter(())


_RULES: Final[dict[str, tuple[Rules, Changes]]] = {
    "pods": (pods.validate_pod, pods.validate_pod_update),
    "services": (services.validate_service, services.validate_service_update),
    "namespaces": (cluster.validate_namespace, _none),
    "nodes": (cluster.validate_node, cluster.validate_node_update),
    "events": (cluster.validate_event, _none),
    "leases.coordination.k8s.io": (cluster.validate_lease, _none),
    "configmaps": (config.validate_config_map, config.validate_config_map_update),
    "secrets": (config.validate_secret, config.validate_secret_update),
    "endpointslices.discovery.k8s.io": (discovery.validate_slice, discovery.validate_slice_update),
    "customresourcedefinitions.apiextensions.k8s.io": (crds.validate_crd, crds.validate_crd_update),
    "tenants.polder.dev": (networks.validate_tenant, networks.validate_tenant_update),
    "networks.polder.dev": (networks.validate_network, networks.validate_network_update),
    "segments.polder.dev": (networks.validate_segment, networks.validate_fixed_spec),
    "ports.polder.dev": (networks.validate_port, networks.validate_port_update),
    "addresses.polder.dev": (networks.validate_address, networks.validate_fixed_spec),
}


_NO_RULES: Final = Declared()
_DECLARED: Final[dict[str, Declared]] = {**WORKLOADS, **JOBS}


def validate_create(kind: Kind, obj: Raw) -> list[FieldError]:
    """What is wrong with a new object, metadata first; its name must be made already."""
    found = list(validate_meta(kind, obj.get("metadata") or {}))
    if kind.resource in _RULES:
        found += _RULES[kind.resource][0](obj)
    for check in _DECLARED.get(kind.resource, _NO_RULES).checks:
        found += check(obj)
    return found


def validate_update(kind: Kind, new: Raw, old: Raw) -> list[FieldError]:
    """What is wrong with the change of an object, in itself or compared to what stood before."""
    found = list(validate_meta_update(kind, new.get("metadata") or {}, old.get("metadata") or {}))
    if kind.resource in _RULES:
        rules, changes = _RULES[kind.resource]
        found += [*rules(new), *changes(new, old)]
    declared = _DECLARED.get(kind.resource, _NO_RULES)
    for check in declared.checks:
        found += check(new)
    for change in declared.changes:
        found += change(new, old)
    return found
