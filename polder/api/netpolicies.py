"""NetworkPolicy and ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2) as Polder's parts read them."""

from __future__ import annotations

from typing import Any

import msgspec

from polder.api.meta import Condition, LabelSelector, Object, Struct


class IPBlock(Struct, frozen=True, kw_only=True):
    """A block of addresses without some of its parts."""

    cidr: str
    without: list[str] | None = msgspec.field(default=None, name="except")


class NetworkPolicyPeer(Struct, frozen=True, kw_only=True):
    """Pods by labels, of the policy's own namespace or of those selected; or a block."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicyPort(Struct, frozen=True, kw_only=True):
    """A port by number, from there to ``endPort``, or by the receiving pod's name for it; no port is all of the protocol."""

    protocol: str = "TCP"
    port: int | str | None = None
    end_port: int | None = None


class NetworkPolicyIngressRule(Struct, frozen=True, kw_only=True):
    """What may come in. No peers are everybody, no ports all."""

    peers: list[NetworkPolicyPeer] | None = msgspec.field(default=None, name="from")
    ports: list[NetworkPolicyPort] | None = None


class NetworkPolicyEgressRule(Struct, frozen=True, kw_only=True):
    """What may go out."""

    peers: list[NetworkPolicyPeer] | None = msgspec.field(default=None, name="to")
    ports: list[NetworkPolicyPort] | None = None


class NetworkPolicySpec(Struct, frozen=True, kw_only=True):
    """For whom, and what they may."""

    pod_selector: LabelSelector = LabelSelector()
    policy_types: list[str] | None = None
    ingress: list[NetworkPolicyIngressRule] | None = None
    egress: list[NetworkPolicyEgressRule] | None = None


class NetworkPolicy(Object, frozen=True, kw_only=True):
    """Isolates the pods that it selects."""

    spec: NetworkPolicySpec = NetworkPolicySpec()


class NamespacedPod(Struct, frozen=True, kw_only=True):
    """Pods by labels in namespaces by labels."""

    namespace_selector: LabelSelector = LabelSelector()
    pod_selector: LabelSelector = LabelSelector()


class ClusterPolicyPeer(Struct, frozen=True, kw_only=True):
    """Exactly one of them; ``networks`` in egress alone."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None
    networks: list[str] | None = None


class PortRange(Struct, frozen=True, kw_only=True):
    """Both ends count."""

    start: int
    end: int


class DestinationPort(Struct, frozen=True, kw_only=True):
    """One number or a range."""

    number: int = 0
    range: PortRange | None = None


class ProtocolPorts(Struct, frozen=True, kw_only=True):
    """One protocol; without a port, all of it."""

    destination_port: DestinationPort | None = None


class ClusterPolicyProtocol(Struct, frozen=True, kw_only=True):
    """Exactly one of them."""

    tcp: ProtocolPorts | None = None
    udp: ProtocolPorts | None = None
    sctp: ProtocolPorts | None = None
    destination_named_port: str = ""


class ClusterPolicyIngressRule(Struct, frozen=True, kw_only=True):
    """What happens to what comes from some peers."""

    action: str
    peers: list[ClusterPolicyPeer] = msgspec.field(name="from")
    name: str = ""
    protocols: list[ClusterPolicyProtocol] | None = None


class ClusterPolicyEgressRule(Struct, frozen=True, kw_only=True):
    """What happens to what goes to some peers."""

    action: str
    peers: list[ClusterPolicyPeer] = msgspec.field(name="to")
    name: str = ""
    protocols: list[ClusterPolicyProtocol] | None = None


class ClusterPolicySubject(Struct, frozen=True, kw_only=True):
    """Exactly one of them."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None


class ClusterNetworkPolicySpec(Struct, frozen=True, kw_only=True):
    """``tier`` is Admin or Baseline; lower ``priority`` comes first."""

    tier: str
    priority: int
    subject: ClusterPolicySubject
    ingress: list[ClusterPolicyIngressRule] | None = None
    egress: list[ClusterPolicyEgressRule] | None = None


class ClusterNetworkPolicyStatus(Struct, frozen=True, kw_only=True):
    """What an implementation says."""

    conditions: list[Condition] | None = None


class ClusterNetworkPolicy(Object, frozen=True, kw_only=True):
    """Rules for pods of the whole cluster, before (Admin) or after (Baseline) those of namespaces."""

    spec: ClusterNetworkPolicySpec
    status: ClusterNetworkPolicyStatus = ClusterNetworkPolicyStatus()


def raw_selector(selector: LabelSelector | None) -> dict[str, Any] | None:
    """As the codec has it."""
    found: dict[str, Any] | None = msgspec.to_builtins(selector) if selector is not None else None
    return found
