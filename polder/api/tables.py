"""The columns of each kind, as ``kubectl get`` prints them (upstream's ``printers/internalversion``)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from polder.api import cidr, jsonpath, podcolumns
from polder.api.columns import AGE, NAME, NONE, TENANT, UNKNOWN, Column, count, integer, part, since, text
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.tables_cluster import CLUSTER
from polder.api.tables_workloads import WORKLOADS

_PLAIN: Final = (NAME, Column("Created At", lambda obj, _: part(obj, "metadata.creationTimestamp"), "date"))
"""A kind that has no columns of its own: roles, limit ranges, definitions of custom kinds."""
_ROLE: Final = "node-role.kubernetes.io/"


def columns_of(
    kind: Kind, declared: Sequence[Mapping[str, Any]] | None = None, *, tenants: bool = False
) -> list[Column]:
    """The columns of a kind; ``declared`` are a custom kind's ``additionalPrinterColumns``; ``tenants`` puts the tenant
    first.
    """
    found = list(_BY_RESOURCE.get(kind.resource, _PLAIN) if declared is None else custom_columns(declared))
    return [TENANT, *found] if tenants else found


def definition(column: Column) -> Raw:
    """The metav1.TableColumnDefinition."""
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def cells(columns: Sequence[Column], obj: Raw, now: datetime) -> list[Any]:
    """The cells of one row."""
    return [column.cell(obj, now) for column in columns]


# --- nodes ------------------------------------------------------------------------------------------------------------


def _node_status(node: Raw, _: datetime) -> str:
    ready = next((c for c in part(node, "status.conditions") or () if c.get("type") == "Ready"), None)
    status = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return f"{status},SchedulingDisabled" if part(node, "spec.unschedulable") else status


def _node_roles(node: Raw, _: datetime) -> str:
    labels = part(node, "metadata.labels") or {}
    roles = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE) and key != _ROLE}
    if labels.get("kubernetes.io/role"):
        roles.add(labels["kubernetes.io/role"])
    return ",".join(sorted(roles)) or NONE


def _node_address(name: str, kind: str) -> Column:
    def cell(node: Raw, _: datetime) -> str:
        found = (a["address"] for a in part(node, "status.addresses") or () if a.get("type") == kind)
        return next(found, NONE)

    return Column(name, cell, priority=1)


# --- services, endpoint slices ----------------------------------------------------------------------------------------


def _service_ports(service: Raw, _: datetime) -> str:
    shown = []
    for port in part(service, "spec.ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port.get('port', 0)}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(shown) or NONE


def _external(service: Raw, _: datetime) -> str:
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    balanced: set[str] = set()
    if spec.get("type") == "LoadBalancer":
        points = part(service, "status.loadBalancer.ingress") or ()
        balanced = {str(point.get("ip") or point.get("hostname") or "") for point in points} - {""}
    shown = [*sorted(balanced), *(spec.get("externalIPs") or ())]
    return ",".join(shown) or ("<pending>" if spec.get("type") == "LoadBalancer" else NONE)


def _selector(obj: Raw, _: datetime) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((part(obj, "spec.selector") or {}).items())) or NONE


def _few(items: list[str], missing: str) -> str:
    """The first three, and how many more."""
    more = f" + {len(items) - 3} more..." if len(items) > 3 else ""
    return ",".join(items[:3]) + more if items else missing


def _slice_ports(piece: Raw, _: datetime) -> str:
    return _few([str(port["port"]) if "port" in port else "*" for port in piece.get("ports") or ()], "<unset>")


def _both(section: str, single: str, obj: Raw, _: object) -> str:
    """Of each family: the list, or what was there before there were lists."""
    return ",".join(cidr.listed(obj.get(section) or {}, single, f"{single}s"))


def _slice_endpoints(piece: Raw, _: datetime) -> str:
    addresses = [str(a) for endpoint in piece.get("endpoints") or () for a in endpoint.get("addresses") or ()]
    return _few(addresses, "<unset>")


# --- events -----------------------------------------------------------------------------------------------------------


def _first_seen(event: Raw, now: datetime) -> str:
    return since(event.get("firstTimestamp") or event.get("eventTime"), now)


def _last_seen(event: Raw, now: datetime) -> str:
    last = part(event, "series.lastObservedTime") or event.get("lastTimestamp")
    return since(last, now) if last else _first_seen(event, now)


def _about(event: Raw, _: datetime) -> str:
    about = event.get("involvedObject") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _source(event: Raw, _: datetime) -> str:
    component = part(event, "source.component") or event.get("reportingComponent") or ""
    host = part(event, "source.host") or event.get("reportingInstance") or ""
    return ", ".join(filter(None, (component, host)))


_EVENT: Final = (
    Column("Last Seen", _last_seen, description="Time this event was last seen."),
    text("Type", "type"),
    text("Reason", "reason"),
    Column("Object", _about),
    text("Subobject", "involvedObject.fieldPath", priority=1),
    Column("Source", _source, priority=1),
    Column("Message", lambda event, _: str(event.get("message", "")).strip()),
    Column("First Seen", _first_seen, priority=1),
    Column("Count", lambda event, _: part(event, "series.count") or event.get("count") or 1, "string", priority=1),
    Column("Name", NAME.cell, format="name", priority=1),
)

_BY_RESOURCE: Final[dict[str, tuple[Column, ...]]] = {
    "pods": podcolumns.COLUMNS,
    "events": _EVENT,
    "namespaces": (NAME, text("Status", "status.phase"), AGE),
    "nodes": (
        NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        AGE,
        text("Version", "status.nodeInfo.kubeletVersion"),
        _node_address("Internal-IP", "InternalIP"),
        _node_address("External-IP", "ExternalIP"),
        text("OS-Image", "status.nodeInfo.osImage", missing=UNKNOWN, priority=1),
        text("Kernel-Version", "status.nodeInfo.kernelVersion", missing=UNKNOWN, priority=1),
        text("Container-Runtime", "status.nodeInfo.containerRuntimeVersion", missing=UNKNOWN, priority=1),
    ),
    "services": (
        NAME,
        text("Type", "spec.type"),
        text("Cluster-IP", "spec.clusterIP", missing=NONE),
        Column("External-IP", _external),
        Column("Port(s)", _service_ports),
        AGE,
        Column("Selector", _selector, priority=1),
    ),
    "configmaps": (NAME, count("Data", "data", "binaryData"), AGE),
    "secrets": (NAME, text("Type", "type"), count("Data", "data"), AGE),
    "serviceaccounts": (NAME, count("Secrets", "secrets"), AGE),
    "endpointslices.discovery.k8s.io": (
        NAME,
        text("AddressType", "addressType"),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
        AGE,
    ),
    "leases.coordination.k8s.io": (NAME, text("Holder", "spec.holderIdentity"), AGE),
    "tenants.polder.dev": (
        NAME,
        text("Phase", "status.phase"),
        Column("Pod-CIDR", functools.partial(_both, "spec", "podCidr"), priority=1),
        Column("Service-CIDR", functools.partial(_both, "spec", "serviceCidr"), priority=1),
        AGE,
    ),
    "segments.polder.dev": (
        NAME,
        integer("VNI", "spec.vni"),
        text("For-Tenant", "spec.tenant"),
        text("Network", "spec.network"),
        AGE,
    ),
    "addresspools.polder.dev": (
        NAME,
        Column("Addresses", lambda pool, _: ",".join(part(pool, "spec.addresses") or ()) or NONE),
        Column("Tenants", lambda pool, _: ",".join(part(pool, "spec.tenants") or ()) or NONE),
        integer("Allocated", "status.allocated"),
        text("Capacity", "status.capacity"),
        AGE,
    ),
    "externaladdresses.polder.dev": (
        NAME,
        text("Address", "spec.address"),
        text("For-Tenant", "spec.tenant"),
        text("Service", "spec.service"),
        text("Pool", "spec.pool"),
        text("Node", "status.node", missing=NONE),
        AGE,
    ),
    "networks.polder.dev": (
        NAME,
        Column("CIDR", functools.partial(_both, "spec", "cidr")),
        Column(
            "Gateway",
            lambda net, now: _both("status", "gateway", net, now) or _both("spec", "gateway", net, now) or NONE,
        ),
        integer("VNI", "status.vni"),
        text("Router", "spec.router", missing=NONE),
        AGE,
    ),
    "routers.polder.dev": (NAME, Column("Service-CIDR", functools.partial(_both, "spec", "serviceCidr")), AGE),
    "ports.polder.dev": (
        NAME,
        text("Network", "spec.network"),
        Column("Address", lambda port, _: ",".join(part(port, "spec.addresses") or ()) or NONE),
        text("Node", "spec.node"),
        text("Phase", "status.phase"),
        AGE,
        text("Pod", "spec.pod", missing=NONE, priority=1),
        text("MAC", "spec.mac", missing=NONE, priority=1),
        text("Link", "status.link", missing=NONE, priority=1),
    ),
    "addresses.polder.dev": (
        NAME,
        text("Network", "spec.network"),
        text("Address", "spec.address"),
        text("Port", "spec.port"),
        text("Node", "spec.node", priority=1),
        AGE,
    ),
    **WORKLOADS,
    **CLUSTER,
}


# --- custom kinds -----------------------------------------------------------------------------------------------------


def custom_columns(declared: Sequence[Mapping[str, Any]]) -> list[Column]:
    """A custom kind's ``additionalPrinterColumns`` after the name; the age where it has none."""
    return [NAME, *(map(_custom, declared) if declared else (AGE,))]


def _custom(declared: Mapping[str, Any]) -> Column:
    kind = str(declared["type"])
    return Column(
        str(declared["name"]),
        functools.partial(_custom_cell, jsonpath.parse(str(declared["jsonPath"])), kind),
        kind if kind != "date" else "string",
        str(declared.get("format", "")),
        str(declared.get("description", "")),
        int(declared.get("priority", 0)),
    )


def _custom_cell(steps: tuple[jsonpath.Step, ...], kind: str, obj: Raw, now: datetime) -> Any:
    found = jsonpath.find(steps, obj)
    if not found or found[0] is None:
        return None
    value = found[0]
    match kind:
        case "date":
            return since(value, now) if isinstance(value, str) else UNKNOWN
        case "integer":
            return int(value) if isinstance(value, int | float) else None
        case "number":
            return float(value) if isinstance(value, int | float) else None
        case "boolean":
            return value if isinstance(value, bool) else None
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return str(value).lower() if isinstance(value, bool) else str(value)
