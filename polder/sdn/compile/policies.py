"""Policies: NetworkPolicies, ClusterNetworkPolicies, defaults of namespaces; and the groups that they name.

A namespace's default stands in its annotation ``polder.dev/default-policy``: ``deny-ingress``, ``deny`` (both directions),
``namespace`` (pods of the namespace alone, both directions) or ``allow``. A tenant's stands at its namespace kube-system, for
what namespaces do not say themselves. It counts where neither a NetworkPolicy isolates nor a ClusterNetworkPolicy decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from ipaddress import ip_network
from typing import NamedTuple, TypeVar

from polder.api import polder as api
from polder.api.core import Namespace
from polder.api.meta import LabelSelector, Object, ref_of
from polder.api.netpolicies import (
    ClusterNetworkPolicy,
    ClusterPolicyEgressRule,
    ClusterPolicyIngressRule,
    ClusterPolicyPeer,
    ClusterPolicyProtocol,
    ClusterPolicySubject,
    NetworkPolicy,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicySpec,
    ProtocolPorts,
)
from polder.base.ref import Ref
from polder.sdn.compile.concern import Declaration, Home, Index, View, itself
from polder.sdn.compile.errors import CompileError
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.compile.selection import (
    DNS_LABELS,
    NAMESPACES,
    PORTS,
    Selector,
    in_namespace,
    in_namespaces,
    members,
    selects,
)
from polder.sdn.topology.policies import (
    ACCEPT,
    ADMIN,
    BASELINE,
    DEFAULT,
    DENY,
    DIRECTIONS,
    EGRESS,
    INGRESS,
    NETWORK,
    PASS,
    Group,
    GroupMember,
    Peer,
    Policy,
    PolicyRule,
    Ports,
)
from polder.sdn.topology.types import Router

TIER_OF = {"Admin": ADMIN, "Baseline": BASELINE}
ACTION_OF = {"Accept": ACCEPT, "Deny": DENY, "Pass": PASS}
CLOSED = (PolicyRule(DENY, anyone=True),)
PROTOCOLS = ("TCP", "UDP", "SCTP")
LAST_PORT = 65535
O = TypeVar("O", bound=Object)  # noqa: E741 - an object
Rule = NetworkPolicyIngressRule | NetworkPolicyEgressRule
ClusterRule = ClusterPolicyIngressRule | ClusterPolicyEgressRule


class Uses(NamedTuple):
    """The selectors of a policy: whom it is for, and whom its rules name, by their groups."""

    subject: Selector
    peers: Mapping[str, Selector]


class _Selectors:
    """Notes what is named while a policy is compiled."""

    def __init__(self) -> None:
        self.peers: dict[str, Selector] = {}

    def group(self, selector: Selector) -> Peer:
        """A peer that is a group."""
        peer = Peer(group=selector.id)
        self.peers[peer.group] = selector
        return peer

    def named(self, ports: Ports) -> Ports:
        """Ports by name."""
        self.peers[ports.group] = Selector(named=ports)
        return ports


def compile_network_policy(policy: NetworkPolicy) -> tuple[Policy, Uses]:
    """A NetworkPolicy. Without policyTypes it isolates ingress, and egress where it has rules for it. The API takes none that
    cannot be understood; one that came to be all the same leaves nothing open: it isolates, and accepts by what can be.
    """
    ref, spec, known = ref_of(policy), policy.spec, _Selectors()
    types = {kind.lower() for kind in spec.policy_types or ["Ingress", *(["Egress"] if spec.egress else [])]}
    isolates = tuple(one for one in DIRECTIONS if one in types or not types.issubset(DIRECTIONS))
    subject = _subject(spec, ref)
    compiled = Policy(
        tenant=ref.tenant,
        name=f"{ref.namespace}/{ref.name}",
        tier=NETWORK,
        subject=subject.id,
        isolates=isolates,
        ingress=_rules(spec.ingress or (), ref, known) if INGRESS in isolates else (),
        egress=_rules(spec.egress or (), ref, known) if EGRESS in isolates else (),
    )
    return compiled, Uses(subject, known.peers)


def compile_cluster_policy(policy: ClusterNetworkPolicy) -> tuple[Policy, Uses]:
    """A ClusterNetworkPolicy. The API takes none that cannot be understood; one that came to be all the same is closed: of no
    tier, its pods reach nobody and are reached by nobody; where it cannot be said whose it is, so it is with all pods.
    """
    ref, spec, known = ref_of(policy), policy.spec, _Selectors()
    tier = TIER_OF.get(spec.tier)
    try:
        subject = _selector(spec.subject, f"ClusterNetworkPolicy {ref}: spec.subject")
    except CompileError:
        subject, tier = in_namespaces(LabelSelector()), None
    ingress = tuple(_cluster_rule(one, ref, known) for one in spec.ingress or ()) if tier else CLOSED
    egress = tuple(_cluster_rule(one, ref, known) for one in spec.egress or ()) if tier else CLOSED
    compiled = Policy(
        tenant=ref.tenant,
        name=f"/{ref.name}",
        tier=tier or ADMIN,
        subject=subject.id,
        priority=spec.priority,
        ingress=ingress,
        egress=egress,
    )
    return compiled, Uses(subject, known.peers)


def compile_default(tenant: str, namespace: str, wish: str) -> tuple[Policy, Uses] | None:
    """What a namespace says of its pods, kube-system of all the tenant's, where no policy speaks. A word that the API would not
    have taken denies.
    """
    whole = namespace == api.SYSTEM_NAMESPACE
    own = in_namespaces(LabelSelector()) if whole else Selector(namespace=namespace)
    (deny,), allow = CLOSED, PolicyRule(ACCEPT, anyone=True)
    inside = PolicyRule(ACCEPT, (Peer(group=own.id),))
    rules: dict[str, tuple[tuple[PolicyRule, ...], tuple[PolicyRule, ...]]] = {
        "allow": ((allow,), (allow,)),
        "deny": ((deny,), (deny,)),
        "deny-ingress": ((deny,), ()),
    }
    if not whole:
        rules["namespace"] = ((inside, deny), (inside, deny))
    if not wish:
        return None
    ingress, egress = rules.get(wish, rules["deny"])
    compiled = Policy(tenant, f"{namespace}/", DEFAULT, own.id, int(whole), ingress=ingress, egress=egress)
    return compiled, Uses(own, {own.id: own} if wish == "namespace" and not whole else {})


def _rules(rules: Sequence[Rule], ref: Ref, known: _Selectors) -> tuple[PolicyRule, ...]:
    """What cannot be understood accepts nothing."""
    found = []
    for rule in rules:
        try:
            peers = tuple(_peer(peer, ref, known) for peer in rule.peers or ())
            ports = tuple(_port(port, known, f"NetworkPolicy {ref}") for port in rule.ports or ())
        except CompileError:
            continue
        found.append(PolicyRule(ACCEPT, peers=peers, ports=ports, anyone=not rule.peers))
    return tuple(found)


def _subject(spec: NetworkPolicySpec, ref: Ref) -> Selector:
    """Whom a policy is for; where that cannot be understood, all pods of its namespace."""
    try:
        return in_namespace(ref.namespace, spec.pod_selector)
    except CompileError:
        return in_namespace(ref.namespace, None)


def _peer(peer: NetworkPolicyPeer, ref: Ref, known: _Selectors) -> Peer:
    if peer.ip_block is not None:
        where = f"NetworkPolicy {ref}: ipBlock"
        without = tuple(_block(one, where) for one in peer.ip_block.without or ())
        return Peer(block=_block(peer.ip_block.cidr, where), without=without)
    if peer.namespace_selector is not None:
        return known.group(in_namespaces(peer.namespace_selector, peer.pod_selector))
    return known.group(in_namespace(ref.namespace, peer.pod_selector))


def _port(port: NetworkPolicyPort, known: _Selectors, where: str) -> Ports:
    if port.protocol not in PROTOCOLS:
        raise CompileError(f"{where}: protocol {port.protocol!r} is none of {', '.join(PROTOCOLS)}")
    if isinstance(port.port, str):
        return known.named(Ports(port.protocol, name=port.port))
    if port.port is None:
        return Ports(port.protocol)
    return _range(port.protocol, port.port, port.end_port if port.end_port is not None else port.port, where)


def _range(protocol: str, first: int, last: int, where: str) -> Ports:
    """Numbers of ports; Ports would have 0 stand for all of them."""
    if not 1 <= first <= last <= LAST_PORT:
        raise CompileError(f"{where}: {first} to {last} are no ports")
    return Ports(protocol, first, last)


def _cluster_rule(rule: ClusterRule, ref: Ref, known: _Selectors) -> PolicyRule:
    """One that cannot be understood is closed: it accepts nothing, or denies everything."""
    where = f"ClusterNetworkPolicy {ref}: rule {rule.name or rule.action}"
    try:
        peers = [one for peer in rule.peers for one in _cluster_peers(peer, known, where)]
        ports = [one for protocol in rule.protocols or () for one in _cluster_ports(protocol, known, where)]
    except CompileError:
        return PolicyRule(DENY, anyone=rule.action != "Accept", name=rule.name)
    if rule.action not in ACTION_OF:
        return PolicyRule(DENY, anyone=True, name=rule.name)
    return PolicyRule(ACTION_OF[rule.action], tuple(peers), tuple(ports), name=rule.name)


def _cluster_peers(peer: ClusterPolicyPeer, known: _Selectors, where: str) -> Iterable[Peer]:
    if peer.networks is not None:
        return [Peer(block=_block(one, where)) for one in peer.networks]
    return [known.group(_selector(peer, where))]


def _selector(which: ClusterPolicySubject | ClusterPolicyPeer, where: str) -> Selector:
    if which.namespaces is not None:
        return in_namespaces(which.namespaces)
    if which.pods is not None:
        return in_namespaces(which.pods.namespace_selector, which.pods.pod_selector)
    raise CompileError(f"{where} names neither namespaces nor pods")


def _cluster_ports(protocol: ClusterPolicyProtocol, known: _Selectors, where: str) -> Iterable[Ports]:
    if protocol.destination_named_port:
        return [known.named(Ports(one, name=protocol.destination_named_port)) for one in PROTOCOLS]
    rows: tuple[ProtocolPorts | None, ...] = (protocol.tcp, protocol.udp, protocol.sctp)
    found = []
    for name, ports in zip(PROTOCOLS, rows, strict=True):
        if ports is None:
            continue
        at = ports.destination_port
        if at is not None and at.range is not None:
            found.append(_range(name, at.range.start, at.range.end, where))
        else:
            found.append(_range(name, at.number, at.number, where) if at is not None else Ports(name))
    if not found:
        raise CompileError(f"{where} names a protocol that is none of {', '.join(PROTOCOLS)}")
    return found


def _block(text: str, where: str) -> str:
    try:
        return _network(text)
    except ValueError as error:
        raise CompileError(f"{where} {text!r} is no block of addresses") from error


@lru_cache(4096)
def _network(text: str) -> str:
    # Python takes any text for the zone of an IPv6 address, and rules would be read with it
    return str(ip_network(text if "%" not in text else "", strict=False))


# -- fragments ---------------------------------------------------------------------------------------------------------

Compiled = tuple[Policy, Uses] | None
Used = dict[str, tuple[Selector, bool]]


class _Latest:
    """What the last objects gave: while one is put, it and what it replaces are asked for again and again."""

    def __init__(self) -> None:
        self._known: deque[tuple[Object, Compiled]] = deque(maxlen=2)

    def of(self, compile_one: Callable[[O], Compiled], obj: O) -> Compiled:
        """What an object compiles to."""
        for one, known in self._known:
            if one is obj:
                return known
        found = compile_one(obj)
        self._known.append((obj, found))
        return found


LATEST = _Latest()


def _of_namespace(namespace: Namespace) -> Compiled:
    ref = ref_of(namespace)
    return compile_default(ref.tenant, ref.name, default_of(namespace))


def default_of(namespace: Namespace) -> str:
    """What its annotation says."""
    return (namespace.metadata.annotations or {}).get(api.DEFAULT_POLICY_ANNOTATION, "")


def _uses(of: Callable[[O], Compiled], obj: O) -> Used:
    """The selectors of what compiles by their groups, and whether rules name them."""
    found = LATEST.of(of, obj)
    if found is None:
        return {}
    subject, peers = found[1]
    return {subject.id: (subject, False)} | {group: (one, True) for group, one in peers.items()}


def _groups(of: Callable[[O], Compiled]) -> Callable[[Ref, O], Iterable[Ref]]:
    """The groups that an object needs."""

    def refs(ref: Ref, obj: O) -> Iterable[Ref]:
        return {Ref(ref.tenant, "", group) for group in _uses(of, obj)}

    return refs


NETWORK_USERS: Index[NetworkPolicy, Used] = Index(
    "network policies by group", NetworkPolicy, _groups(compile_network_policy), partial(_uses, compile_network_policy)
)
CLUSTER_USERS: Index[ClusterNetworkPolicy, Used] = Index(
    "cluster policies by group",
    ClusterNetworkPolicy,
    _groups(compile_cluster_policy),
    partial(_uses, compile_cluster_policy),
)
DEFAULT_USERS: Index[Namespace, Used] = Index(
    "default policies by group", Namespace, _groups(_of_namespace), partial(_uses, _of_namespace)
)


def _policy(ref: Ref, view: View) -> Policy | None:
    compiled: Compiled = None
    if ref.namespace and ref.name:
        network = view.get(NetworkPolicy, ref)
        compiled = LATEST.of(compile_network_policy, network) if network is not None else None
    elif ref.name:
        cluster = view.get(ClusterNetworkPolicy, ref)
        compiled = compile_cluster_policy(cluster) if cluster is not None else None
    else:
        namespace = view.get(Namespace, Ref(ref.tenant, "", ref.namespace))
        compiled = _of_namespace(namespace) if namespace is not None else None
    return compiled[0] if compiled is not None else None


def _group(ref: Ref, view: View) -> Group | None:
    network, cluster, default = view.by(NETWORK_USERS, ref), view.by(CLUSTER_USERS, ref), view.by(DEFAULT_USERS, ref)
    uses = [one[ref.name] for one in (*network.values(), *cluster.values(), *default.values()) if ref.name in one]
    if not uses:
        return None
    selector, peer = uses[0][0], any(named for _, named in uses)
    found = members(selector, ref.tenant, view)
    if selects(selector, ref.tenant, api.SYSTEM_NAMESPACE, DNS_LABELS, view):
        found += _resolver(ref, view)
    return Group(ref.tenant, f"/{ref.name}", peer, selector.named is not None, found)


def _resolver(ref: Ref, view: View) -> tuple[GroupMember, ...]:
    """The tenant's resolver has no pod, but is named as if it had."""
    router = view.part(Key(Concern.ROUTER, Ref(ref.tenant, api.SYSTEM_NAMESPACE, api.DEFAULT_ROUTER)), Router)
    return (GroupMember("", "", (router.dns,)),) if router is not None and router.dns else ()


def _has_default(ref: Ref, namespace: Namespace) -> Iterable[Ref]:
    return (Ref(ref.tenant, ref.name, ""),) if default_of(namespace) else ()


POLICY = Declaration(
    Concern.POLICY,
    Policy,
    (Home(NetworkPolicy, itself), Home(ClusterNetworkPolicy, itself), Home(Namespace, _has_default)),
    _policy,
)
GROUP = Declaration(
    Concern.GROUP,
    Group,
    (
        Home(NetworkPolicy, _groups(compile_network_policy)),
        Home(ClusterNetworkPolicy, _groups(compile_cluster_policy)),
        Home(Namespace, _groups(_of_namespace)),
    ),
    _group,
    (NETWORK_USERS, CLUSTER_USERS, DEFAULT_USERS, PORTS, NAMESPACES),
)
