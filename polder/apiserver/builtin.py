"""Objects that every tenant has without rows: what they hold, and the row that says that one was deleted.

They are copy-on-write: a tenant's write makes a row, a tenant's deletion leaves ``TOMBSTONE`` in its place.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import orjson

from polder.api.meta import Raw
from polder.api.rbac_policy import bootstrap_bindings, bootstrap_roles
from polder.apiserver import builtin_apis
from polder.apiserver.builtin_flow import flow_objects
from polder.apiserver.objects import encode
from polder.base.ids import TenantName
from polder.store.protocol import Key

TOMBSTONE = b'{"polder":"deleted"}'
"""The value of a row that stands for a deleted built-in object; no object is encoded so."""
BORN = 1
"""The revision at which they are shown: the one of a store that is still empty, so that no row has it."""
CLUSTER_ROLES = "clusterroles.rbac.authorization.k8s.io"
CLUSTER_BINDINGS = "clusterrolebindings.rbac.authorization.k8s.io"
ROLES = "roles.rbac.authorization.k8s.io"
BINDINGS = "rolebindings.rbac.authorization.k8s.io"
PRIORITY_CLASSES = "priorityclasses.scheduling.k8s.io"
FLOW_SCHEMAS = "flowschemas.flowcontrol.apiserver.k8s.io"
PRIORITY_LEVELS = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"
SERVICE_CIDRS = "servicecidrs.networking.k8s.io"
_OF_RBAC = {
    "ClusterRole": CLUSTER_ROLES,
    "Role": ROLES,
    "ClusterRoleBinding": CLUSTER_BINDINGS,
    "RoleBinding": BINDINGS,
}


@dataclass(frozen=True, slots=True)
class Birth:
    """What of a tenant its built-in objects follow: name, UID, time of creation (RFC 3339), ranges of service addresses."""

    tenant: TenantName
    uid: str
    created: str
    service_cidrs: tuple[str, ...]


Place = tuple[str, str]
"""Namespace and name."""


@lru_cache(maxsize=1)
def _fixed() -> Mapping[str, Mapping[Place, Raw]]:
    """Those that are equal in all tenants, by resource."""
    found: dict[str, dict[Place, Raw]] = {}
    for obj in (*bootstrap_roles(), *bootstrap_bindings()):
        meta = obj["metadata"]
        found.setdefault(_OF_RBAC[obj["kind"]], {})[meta.get("namespace", ""), meta["name"]] = obj
    for name, value, text in (
        ("system-cluster-critical", 2000000000, "For pods that the cluster needs, on whichever node."),
        ("system-node-critical", 2000001000, "For pods that their own node needs."),
    ):
        found.setdefault(PRIORITY_CLASSES, {})["", name] = {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name, "generation": 1},
            "value": value,
            "description": text,
            "preemptionPolicy": "PreemptLowerPriority",
        }
    for obj in flow_objects():
        resource = FLOW_SCHEMAS if obj["kind"] == "FlowSchema" else PRIORITY_LEVELS
        found.setdefault(resource, {})["", obj["metadata"]["name"]] = obj
    return found


def _service_cidr(birth: Birth) -> Raw:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes", "generation": 1, "finalizers": ["networking.k8s.io/service-cidr-finalizer"]},
        "spec": {"cidrs": list(birth.service_cidrs)},
        "status": {
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "lastTransitionTime": birth.created,
                    "message": "service addresses are given from this range",
                    "reason": "",
                }
            ]
        },
    }


def _api_service(name: str, birth: Birth) -> Raw:
    return builtin_apis.api_service(name, birth.created)


_MADE: Mapping[str, Mapping[Place, Callable[[Birth], Raw]]] = {
    SERVICE_CIDRS: {("", "kubernetes"): _service_cidr},
    builtin_apis.API_SERVICES: {("", name): partial(_api_service, name) for name in builtin_apis.names()},
}
"""Those that follow from the tenant."""


def built_in_resources() -> frozenset[str]:
    """The resources that have built-in objects."""
    return frozenset(_fixed()) | frozenset(_MADE)


def places(resource: str) -> Sequence[Place]:
    """Where a resource's built-in objects are, in the order of keys."""
    return _places().get(resource, ())


@lru_cache(maxsize=1)
def _places() -> Mapping[str, Sequence[Place]]:
    return {r: tuple(sorted({*_fixed().get(r, ()), *_MADE.get(r, ())})) for r in built_in_resources()}


def is_built_in(key: Key) -> bool:
    """Whether a built-in object may be shown under a key."""
    at = (key.namespace, key.name)
    return at in _fixed().get(key.resource, ()) or at in _MADE.get(key.resource, ())


def content(resource: str, at: Place) -> Raw | None:
    """A built-in object that is equal in all tenants, without UID and time. Read only: it is shared."""
    return _fixed().get(resource, {}).get(at)


def built_in(birth: Birth, resource: str, at: Place, changes: Raw | None = None) -> bytes:
    """The stored form of a tenant's built-in object, with fields changed. Raises KeyError where there is none."""
    return _unchanged(birth, resource, at) if changes is None else _built(birth, resource, at, changes)


@lru_cache(maxsize=512)
def _unchanged(birth: Birth, resource: str, at: Place) -> bytes:
    """Those that are asked for with each pod, such as the priority classes, are made once."""
    return _built(birth, resource, at, {})


def _built(birth: Birth, resource: str, at: Place, changes: Raw) -> bytes:
    fixed = _fixed().get(resource, {}).get(at)
    raw = fixed if fixed is not None else _MADE[resource][at](birth)
    identity = uuid.uuid5(uuid.NAMESPACE_OID, f"{birth.uid} {resource} {at[0]}/{at[1]}")
    meta = {**raw["metadata"], "uid": str(identity), "creationTimestamp": birth.created}
    return encode({**raw, **changes, "metadata": meta})


def is_tombstone(value: bytes | None) -> bool:
    """Whether a row says that the built-in object of its key was deleted."""
    return value == TOMBSTONE


def rules_of(value: bytes) -> list[Raw]:
    """The rules of a stored role."""
    found: list[Raw] = orjson.loads(value).get("rules") or []
    return found
