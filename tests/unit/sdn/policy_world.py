"""Three namespaces with two pods each, on two nodes and two networks, and what Kubernetes says of them: an oracle of its own.

The oracle reads the objects as they are written and asks each rule about each pair of pods; it knows no groups, sets or chains.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec

from polder.api import polder as api
from polder.api.core import Namespace
from polder.api.meta import TENANT_ANNOTATION, ObjectMeta, ref_of
from polder.api.netpolicies import ClusterNetworkPolicy, NetworkPolicy
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.sdn.compile.compiler import Compiler
from polder.sdn.topology.policies import Group, Policy
from polder.sdn.topology.types import Part

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod: its labels are its own name (``pod``), and ``odd`` for one in three."""

    namespace: str
    name: str
    node: str
    network: str
    number: int

    @property
    def full(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def labels(self) -> dict[str, str]:
        odd = {"odd": "yes"} if self.number % 3 == 0 else {}
        return {"pod": self.name, **odd}

    @property
    def addresses(self) -> tuple[str, str]:
        """One of each family; the second network has others."""
        third = 1 if self.network == "a" else 2
        return f"10.0.{third}.{9 + self.number}", f"fd00:10:0:{third}::{9 + self.number:x}"

    @property
    def named(self) -> dict[str, tuple[str, int]]:
        """Ports by name; z's pods call another number ``web``."""
        return {"web": ("TCP", 81 if self.namespace == "z" else 80), "dns": ("UDP", 80)}


PODS = tuple(
    Pod(namespace, name, f"n{1 + number % 2}", "b" if namespace == "z" else "a", number)
    for number, (namespace, name) in enumerate((n, p) for n in "xyz" for p in "ab")
)
NAMESPACES: dict[str, dict[str, str]] = {n: {"ns": n, "kubernetes.io/metadata.name": n} for n in "xyz"}


@dataclass(frozen=True, slots=True)
class Probe:
    """A packet that a pod sends to another."""

    source: Pod
    target: Pod
    protocol: str = "TCP"
    port: int = 80
    family: int = 4

    @property
    def addresses(self) -> tuple[str, str]:
        at = 0 if self.family == 4 else 1
        return self.source.addresses[at], self.target.addresses[at]

    def __str__(self) -> str:
        return f"{self.source.full} -> {self.target.full} {self.protocol}/{self.port} IPv{self.family}"


def policy(namespace: str, name: str, **spec: Any) -> Raw:
    """A NetworkPolicy; without podSelector it is for all pods of the namespace."""
    return {"kind": "NetworkPolicy", "namespace": namespace, "name": name, "spec": {"podSelector": {}, **spec}}


def cluster(name: str, tier: str, priority: int, subject: Raw, **rules: Any) -> Raw:
    """A ClusterNetworkPolicy."""
    spec = {"tier": tier, "priority": priority, "subject": subject, **rules}
    return {"kind": "ClusterNetworkPolicy", "namespace": "", "name": name, "spec": spec}


def default(namespace: str, wish: str) -> Raw:
    """A namespace's default."""
    return {"kind": "Default", "namespace": namespace, "name": "", "wish": wish}


class World:
    """Feeds a compiler with the pods of one tenant and with policies."""

    def __init__(self, tenant: str = "acme") -> None:
        self.tenant = tenant
        self.compiler = Compiler()
        self.revision = 0
        self.known: dict[tuple[type[Any], Ref], Raw] = {}
        for name in (*NAMESPACES, "kube-system"):
            self.put(Namespace, "", name, labels=NAMESPACES.get(name, {}))
        for pod in PODS:
            self.put_pod(pod)
        self.compiler.recompile()

    def meta(self, namespace: str, name: str, **more: Any) -> ObjectMeta:
        self.revision += 1
        notes = {TENANT_ANNOTATION: self.tenant, **more.pop("annotations", {})}
        return ObjectMeta(
            name=name, namespace=namespace, resource_version=str(self.revision), annotations=notes, **more
        )

    def put(self, kind: type[Any], namespace: str, name: str, spec: Any = None, **meta: Any) -> None:
        obj = kind(metadata=self.meta(namespace, name, **meta), **({"spec": spec} if spec is not None else {}))
        self.compiler.put(kind, ref_of(obj), obj)

    def put_pod(self, pod: Pod, labels: dict[str, str] | None = None) -> None:
        ports = [api.NamedPort(name=n, container_port=p, protocol=k) for n, (k, p) in pod.named.items()]
        spec = api.PortSpec(
            network=f"default/{pod.network}",
            node=pod.node,
            pod=pod.name,
            pod_uid=pod.full,
            addresses=list(pod.addresses),
            labels=labels if labels is not None else pod.labels,
            container_ports=ports,
        )
        self.put(api.Port, pod.namespace, pod.name, spec)

    def apply(self, policies: list[Raw]) -> dict[Any, Part | None]:
        """Have exactly these policies; the parts that changed."""
        wanted: dict[tuple[type[Any], Ref], Raw] = {}
        for raw in policies:
            kinds = {"NetworkPolicy": NetworkPolicy, "ClusterNetworkPolicy": ClusterNetworkPolicy, "Default": Namespace}
            name = raw["name"] or raw["namespace"]
            namespace = raw["namespace"] if raw["kind"] == "NetworkPolicy" else ""
            wanted[kinds[raw["kind"]], Ref(TenantName(self.tenant), namespace, name)] = raw
        for kind, ref in self.known.keys() - wanted.keys():
            if kind is Namespace:
                self.put(Namespace, "", ref.name, labels=NAMESPACES.get(ref.name, {}))
            else:
                self.compiler.put(kind, ref, None)
        for (kind, ref), raw in wanted.items():
            if kind is Namespace:
                notes = {api.DEFAULT_POLICY_ANNOTATION: raw["wish"]}
                self.put(Namespace, "", ref.name, labels=NAMESPACES.get(ref.name, {}), annotations=notes)
                continue
            obj = msgspec.convert({"metadata": {"name": ref.name}, "spec": raw["spec"]}, kind)
            obj = msgspec.structs.replace(obj, metadata=self.meta(ref.namespace, ref.name))
            self.compiler.put(kind, ref, obj)
        self.known = wanted
        return self.compiler.recompile()

    def parts(self) -> list[Part]:
        """Policies and groups."""
        assert not [e for k, e in self.compiler.errors.items() if k.concern.value in ("policy", "group")]
        return [part for part in self.compiler.parts.values() if isinstance(part, Policy | Group)]


def allowed(policies: list[Raw], probe: Probe) -> bool:
    """What Kubernetes says: both ends have to agree."""
    if probe.source == probe.target:
        return True
    return all(_end(policies, probe, direction) for direction in ("egress", "ingress"))


def _end(policies: list[Raw], probe: Probe, direction: str) -> bool:
    me = probe.source if direction == "egress" else probe.target
    mine = [raw for raw in policies if _is_for(raw, me)]
    for tier in ("Admin", None, "Baseline"):
        if tier is None:
            isolating = [one for one in mine if one["kind"] == "NetworkPolicy" and direction in _types(one["spec"])]
            if isolating:
                return any(_accepts(one, probe, direction) for one in isolating)
            continue
        known = [one for one in mine if one["kind"] == "ClusterNetworkPolicy" and one["spec"]["tier"] == tier]
        for one in sorted(known, key=lambda raw: raw["spec"]["priority"]):
            hit = next((r for r in one["spec"].get(direction, []) if _cluster_hit(r, probe, direction)), None)
            if hit is not None and hit["action"] != "Pass":
                return bool(hit["action"] == "Accept")
            if hit is not None:
                break
    return _default(mine, probe, direction, me)


def _default(mine: list[Raw], probe: Probe, direction: str, me: Pod) -> bool:
    wishes = {one["namespace"]: one["wish"] for one in mine if one["kind"] == "Default"}
    for namespace in (me.namespace, "kube-system"):
        wish = wishes.get(namespace, "")
        if wish == "namespace":
            return probe.source.namespace == probe.target.namespace
        if wish in ("allow", "deny") or (wish == "deny-ingress" and direction == "ingress"):
            return bool(wish == "allow")
    return True


def _is_for(raw: Raw, pod: Pod) -> bool:
    if raw["kind"] == "Default":
        return raw["namespace"] in (pod.namespace, "kube-system")
    if raw["kind"] == "NetworkPolicy":
        return bool(raw["namespace"] == pod.namespace) and _selects(raw["spec"]["podSelector"], pod.labels)
    return _cluster_peer(raw["spec"]["subject"], pod, "")


def _types(spec: Raw) -> list[str]:
    given = spec.get("policyTypes")
    return [one.lower() for one in given] if given else ["ingress", *(["egress"] if spec.get("egress") else [])]


def _accepts(raw: Raw, probe: Probe, direction: str) -> bool:
    side = "from" if direction == "ingress" else "to"
    return any(
        _peers(rule.get(side), raw["namespace"], probe, direction) and _ports(rule.get("ports"), probe)
        for rule in raw["spec"].get(direction) or []
    )


def _peers(peers: list[Raw] | None, namespace: str, probe: Probe, direction: str) -> bool:
    if not peers:
        return True
    other = probe.source if direction == "ingress" else probe.target
    address = probe.addresses[0 if direction == "ingress" else 1]
    for peer in peers:
        if "ipBlock" in peer:
            if _in(address, peer["ipBlock"]["cidr"]) and not any(
                _in(address, one) for one in peer["ipBlock"].get("except", [])
            ):
                return True
            continue
        there = _selects(peer["namespaceSelector"], NAMESPACES[other.namespace]) if "namespaceSelector" in peer else (
            other.namespace == namespace
        )  # fmt: skip
        if there and _selects(peer.get("podSelector", {}), other.labels):
            return True
    return False


def _ports(ports: list[Raw] | None, probe: Probe) -> bool:
    if not ports:
        return True
    for one in ports:
        protocol, port = one.get("protocol", "TCP"), one.get("port")
        if protocol != probe.protocol:
            continue
        if port is None or (isinstance(port, int) and port <= probe.port <= one.get("endPort", port)):
            return True
        if isinstance(port, str) and probe.target.named.get(port) == (protocol, probe.port):
            return True
    return False


def _cluster_hit(rule: Raw, probe: Probe, direction: str) -> bool:
    other = probe.source if direction == "ingress" else probe.target
    address = probe.addresses[0 if direction == "ingress" else 1]
    known = any(_cluster_peer(peer, other, address) for peer in rule["from" if direction == "ingress" else "to"])
    return known and ("protocols" not in rule or any(_cluster_port(one, probe) for one in rule["protocols"]))


def _cluster_port(protocol: Raw, probe: Probe) -> bool:
    if name := protocol.get("destinationNamedPort"):
        return probe.target.named.get(name) == (probe.protocol, probe.port)
    found = protocol.get(probe.protocol.lower())
    if found is None:
        return False
    port = found.get("destinationPort")
    if port is None:
        return True
    span = port.get("range") or {"start": port.get("number"), "end": port.get("number")}
    return bool(span["start"] <= probe.port <= span["end"])


def _cluster_peer(peer: Raw, pod: Pod, address: str) -> bool:
    if "networks" in peer:
        return any(_in(address, one) for one in peer["networks"])
    if "namespaces" in peer:
        return _selects(peer["namespaces"], NAMESPACES[pod.namespace])
    which = peer["pods"]
    return _selects(which["namespaceSelector"], NAMESPACES[pod.namespace]) and _selects(
        which["podSelector"], pod.labels
    )


def _selects(selector: Raw, labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", []):
        has, values = one["key"] in labels, one.get("values", [])
        holds = {
            "In": has and labels.get(one["key"]) in values,
            "NotIn": not has or labels.get(one["key"]) not in values,
            "Exists": has,
            "DoesNotExist": not has,
        }
        if not holds[one["operator"]]:
            return False
    return True


def _in(address: str, block: str) -> bool:
    return ip_address(address).version == ip_network(block).version and ip_address(address) in ip_network(block)
