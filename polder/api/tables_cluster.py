"""Columns of what a cluster as a whole is made of: classes, policies, roles, networks, devices, flow control."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from polder.api.columns import AGE, NAME, NONE, Cell, Column, count, duration, integer, part, text
from polder.api.meta import Raw
from polder.api.tables_workloads import UNSET, boolean, joined, selector, selector_text


def _default(annotation: str) -> Column:
    """The name, with a mark where the object is the default of its kind."""

    def cell(obj: Raw, _: datetime) -> str:
        marked = (part(obj, "metadata.annotations") or {}).get(annotation) == "true"
        return f"{part(obj, 'metadata.name') or ''}{' (default)' if marked else ''}"

    return Column("Name", cell, format="name", description=NAME.description)


# --- ingresses, addresses ---------------------------------------------------------------------------------------------


def _hosts(ingress: Raw, _: datetime) -> str:
    rules = part(ingress, "spec.rules") or []
    shown: list[str] = [rule["host"] for rule in rules[: _first_three(rules)] if rule.get("host")]
    more = f" + {len(rules) - 3} more..." if len(shown) == 3 and len(rules) > 3 else ""
    return ",".join(shown) + more if shown else "*"


def _first_three(rules: list[Raw]) -> int:
    """How many rules have the first three hosts."""
    seen = 0
    for number, rule in enumerate(rules):
        seen += bool(rule.get("host"))
        if seen == 3:
            return number + 1
    return len(rules)


def _balanced(ingress: Raw, _: datetime) -> str:
    points = part(ingress, "status.loadBalancer.ingress") or ()
    return ",".join(sorted({str(point.get("ip") or point.get("hostname") or "") for point in points} - {""}))


def _parameters(ingress_class: Raw, _: datetime) -> str:
    found = part(ingress_class, "spec.parameters")
    if not found:
        return NONE
    group = f".{found['apiGroup']}" if found.get("apiGroup") else ""
    return f"{found.get('kind', '')}{group}/{found.get('name', '')}"


def _parent(address: Raw, _: datetime) -> str:
    parent = part(address, "spec.parentRef")
    if not parent:
        return NONE
    group = f".{parent['group']}" if parent.get("group") else ""
    space = f"/{parent['namespace']}" if parent.get("namespace") else ""
    return f"{parent.get('resource', '')}{group}".lower() + f"{space}/{parent.get('name', '')}"


# --- roles, requests --------------------------------------------------------------------------------------------------


def _subjects(kind: str) -> Cell:
    def cell(binding: Raw, _: datetime) -> str:
        found = [subject for subject in binding.get("subjects") or () if subject.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{subject.get('namespace', '')}/{subject.get('name', '')}" for subject in found)
        return ", ".join(str(subject.get("name", "")) for subject in found)

    return cell


def _role(binding: Raw, _: datetime) -> str:
    role = binding.get("roleRef") or {}
    return f"{role.get('kind', '')}/{role.get('name', '')}"


_BINDING: Final = (
    NAME,
    Column("Role", _role),
    AGE,
    Column("Users", _subjects("User"), priority=1),
    Column("Groups", _subjects("Group"), priority=1),
    Column("ServiceAccounts", _subjects("ServiceAccount"), priority=1),
)


def _signing_state(request: Raw, _: datetime) -> str:
    types = {condition.get("type") for condition in part(request, "status.conditions") or ()}
    state = "Denied" if "Denied" in types else "Approved" if "Approved" in types else "Pending"
    failed = ",Failed" if "Failed" in types else ""
    return f"{state}{failed}{',Issued' if part(request, 'status.certificate') else ''}"


def _asked(request: Raw, _: datetime) -> str:
    seconds = part(request, "spec.expirationSeconds")
    return NONE if seconds is None else duration(int(seconds))


# --- admission, aggregation, flow control, devices --------------------------------------------------------------------


def _param_kind(policy: Raw, _: datetime) -> str:
    kind = part(policy, "spec.paramKind")
    return f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else UNSET


def _param(binding: Raw, _: datetime) -> str:
    param = part(binding, "spec.paramRef") or {}
    if name := param.get("name"):
        return f"{param.get('namespace') or '*'}/{name}"
    return selector_text(param["selector"]) if param.get("selector") is not None else UNSET


_HOOKS: Final = (NAME, count("Webhooks", "webhooks"), AGE)
_POLICY_BINDING: Final = (NAME, text("PolicyName", "spec.policyName"), Column("ParamRef", _param), AGE)


def _service(api: Raw, _: datetime) -> str:
    service = part(api, "spec.service")
    return f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"


def _available(api: Raw, _: datetime) -> str:
    found = next((c for c in part(api, "status.conditions") or () if c.get("type") == "Available"), None)
    if found is None:
        return "Unknown"
    status, reason = str(found.get("status", "")), found.get("reason", "")
    return status if status == "True" or not reason else f"{status} ({reason})"


def _dangling(schema: Raw, _: datetime) -> str:
    found = (c.get("status") for c in part(schema, "status.conditions") or () if c.get("type") == "Dangling")
    return str(next(found, "?"))


def _or_none(name: str, path: str) -> Column:
    return Column(name, lambda obj, _: NONE if (found := part(obj, path)) is None else found)


def _audiences(driver: Raw, _: datetime) -> str:
    requests = part(driver, "spec.tokenRequests")
    return UNSET if requests is None else ",".join(str(request.get("audience", "")) for request in requests)


def _claim_state(claim: Raw, _: datetime) -> str:
    deleted = bool(part(claim, "metadata.deletionTimestamp"))
    states = ["deleted"] if deleted else []
    if part(claim, "status.allocation") is None:
        return ",".join(states if deleted else ["pending"])
    reserved = ["reserved"] if part(claim, "status.reservedFor") else []
    return ",".join([*states, "allocated", *reserved])


def _health(component: Raw, _: datetime) -> str:
    found = next((c for c in component.get("conditions") or () if c.get("type") == "Healthy"), None)
    return "Unknown" if found is None else "Healthy" if found.get("status") == "True" else "Unhealthy"


def _condition(field: str) -> Cell:
    return lambda component, _: next((c.get(field, "") for c in component.get("conditions") or ()), "")


_QUEUING: Final = "spec.limited.limitResponse.queuing"
CLUSTER: Final[dict[str, tuple[Column, ...]]] = {
    "componentstatuses": (
        NAME,
        Column("Status", _health),
        Column("Message", _condition("message")),
        Column("Error", _condition("error")),
    ),
    "ingresses.networking.k8s.io": (
        NAME,
        text("Class", "spec.ingressClassName", missing=NONE),
        Column("Hosts", _hosts),
        Column("Address", _balanced),
        Column("Ports", lambda obj, _: "80, 443" if part(obj, "spec.tls") else "80"),
        AGE,
    ),
    "ingressclasses.networking.k8s.io": (
        _default("ingressclass.kubernetes.io/is-default-class"),
        text("Controller", "spec.controller"),
        Column("Parameters", _parameters),
        AGE,
    ),
    "ipaddresses.networking.k8s.io": (NAME, Column("ParentRef", _parent), AGE),
    "clusternetworkpolicies.policy.networking.k8s.io": (
        NAME,
        text("Tier", "spec.tier"),
        integer("Priority", "spec.priority"),
        AGE,
    ),
    "networkpolicies.networking.k8s.io": (NAME, selector("Pod-Selector", "spec.podSelector"), AGE),
    "servicecidrs.networking.k8s.io": (NAME, joined("CIDRs", "spec.cidrs"), AGE),
    "rolebindings.rbac.authorization.k8s.io": _BINDING,
    "clusterrolebindings.rbac.authorization.k8s.io": _BINDING,
    "certificatesigningrequests.certificates.k8s.io": (
        NAME,
        AGE,
        text("SignerName", "spec.signerName", missing=NONE),
        text("Requestor", "spec.username"),
        Column("RequestedDuration", _asked),
        Column("Condition", _signing_state),
    ),
    "storageclasses.storage.k8s.io": (
        _default("storageclass.kubernetes.io/is-default-class"),
        text("Provisioner", "provisioner"),
        text("ReclaimPolicy", "reclaimPolicy", missing="Delete"),
        text("VolumeBindingMode", "volumeBindingMode", missing="Immediate"),
        boolean("AllowVolumeExpansion", "allowVolumeExpansion"),
        AGE,
    ),
    "volumeattributesclasses.storage.k8s.io": (NAME, text("DriverName", "driverName"), AGE),
    "volumeattachments.storage.k8s.io": (
        NAME,
        text("Attacher", "spec.attacher"),
        text("PV", "spec.source.persistentVolumeName"),
        text("Node", "spec.nodeName"),
        boolean("Attached", "status.attached"),
        AGE,
    ),
    "csinodes.storage.k8s.io": (NAME, count("Drivers", "spec.drivers"), AGE),
    "csidrivers.storage.k8s.io": (
        NAME,
        boolean("AttachRequired", "spec.attachRequired", missing=True),
        boolean("PodInfoOnMount", "spec.podInfoOnMount"),
        boolean("StorageCapacity", "spec.storageCapacity"),
        Column("TokenRequests", _audiences),
        boolean("RequiresRepublish", "spec.requiresRepublish"),
        joined("Modes", "spec.volumeLifecycleModes", missing=NONE),
        AGE,
    ),
    "csistoragecapacities.storage.k8s.io": (
        NAME,
        text("StorageClassName", "storageClassName"),
        text("Capacity", "capacity", missing=UNSET),
    ),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _HOOKS,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _HOOKS,
    "validatingadmissionpolicies.admissionregistration.k8s.io": (
        NAME,
        count("Validations", "spec.validations"),
        Column("ParamKind", _param_kind),
        AGE,
    ),
    "mutatingadmissionpolicies.admissionregistration.k8s.io": (
        NAME,
        count("Mutations", "spec.mutations"),
        Column("ParamKind", _param_kind),
        AGE,
    ),
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": _POLICY_BINDING,
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": _POLICY_BINDING,
    "apiservices.apiregistration.k8s.io": (NAME, Column("Service", _service), Column("Available", _available), AGE),
    "priorityclasses.scheduling.k8s.io": (
        NAME,
        integer("Value", "value"),
        boolean("Global-Default", "globalDefault"),
        AGE,
        text("PreemptionPolicy", "preemptionPolicy", priority=1),
    ),
    "runtimeclasses.node.k8s.io": (NAME, text("Handler", "handler"), AGE),
    "flowschemas.flowcontrol.apiserver.k8s.io": (
        NAME,
        text("PriorityLevel", "spec.priorityLevelConfiguration.name"),
        Column("MatchingPrecedence", lambda obj, _: part(obj, "spec.matchingPrecedence") or 0),
        text("DistinguisherMethod", "spec.distinguisherMethod.type", missing=NONE),
        AGE,
        Column("MissingPL", _dangling),
    ),
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": (
        NAME,
        text("Type", "spec.type"),
        _or_none("NominalConcurrencyShares", "spec.limited.nominalConcurrencyShares"),
        _or_none("Queues", f"{_QUEUING}.queues"),
        _or_none("HandSize", f"{_QUEUING}.handSize"),
        _or_none("QueueLengthLimit", f"{_QUEUING}.queueLengthLimit"),
        AGE,
    ),
    "deviceclasses.resource.k8s.io": (NAME, AGE),
    "resourceclaims.resource.k8s.io": (NAME, Column("State", _claim_state), AGE),
    "resourceclaimtemplates.resource.k8s.io": (NAME, AGE),
    "resourceslices.resource.k8s.io": (
        NAME,
        text("Node", "spec.nodeName"),
        text("Driver", "spec.driver"),
        text("Pool", "spec.pool.name"),
        AGE,
    ),
}
