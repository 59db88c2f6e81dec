"""Rules for ClusterNetworkPolicy, as upstream's definition has them: policy.networking.k8s.io/v1alpha2.

Peers by nodes and by domain names are no part of the served type: a tenant's pods reach no node, and names are nothing that a
packet shows. A policy that names them is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.polder import DEFAULT_POLICIES, DEFAULT_POLICY_ANNOTATION, SYSTEM_NAMESPACE
from polder.api.validation.rules import Rules, validate_selector

_SPEC: Final = Field("spec")
_TIERS: Final = ("Admin", "Baseline")
_ACTIONS: Final = ("Accept", "Deny", "Pass")
_MOST: Final = 25
_HIGHEST: Final = 1000
_NAME: Final = 100


def validate_cluster_policy(policy: Raw) -> Iterator[FieldError]:
    """Tier, priority, whom it is for, and the rules of both directions."""
    spec = policy.get("spec") or {}
    if spec.get("tier") not in _TIERS:
        yield (_SPEC / "tier").not_supported(spec.get("tier", ""), _TIERS)
    if not 0 <= spec.get("priority", 0) <= _HIGHEST:
        yield (_SPEC / "priority").invalid(spec["priority"], f"must be between 0 and {_HIGHEST}")
    yield from _selection(spec.get("subject") or {}, _SPEC / "subject", ("namespaces", "pods"))
    for direction, side in (("ingress", "from"), ("egress", "to")):
        rules = spec.get(direction) or []
        if len(rules) > _MOST:
            yield (_SPEC / direction).too_many(len(rules), _MOST)
        for number, rule in enumerate(rules[:_MOST]):
            yield from _rule(rule, side, (_SPEC / direction)[number])


def validate_default_policy(meta: Raw) -> Iterator[FieldError]:
    """The annotation of a namespace; the tenant's own default, at kube-system, cannot be the namespace."""
    wish = (meta.get("annotations") or {}).get(DEFAULT_POLICY_ANNOTATION)
    words = DEFAULT_POLICIES if meta.get("name") != SYSTEM_NAMESPACE else DEFAULT_POLICIES[:-1]
    if wish is not None and wish not in words:
        yield Field("metadata.annotations")[DEFAULT_POLICY_ANNOTATION].not_supported(wish, words)


def _rule(rule: Raw, side: str, at: Field) -> Iterator[FieldError]:
    if len(rule.get("name") or "") > _NAME:
        yield (at / "name").too_long(_NAME)
    if rule.get("action") not in _ACTIONS:
        yield (at / "action").not_supported(rule.get("action", ""), _ACTIONS)
    peers, protocols = rule.get(side) or [], rule.get("protocols")
    if not peers:
        yield (at / side).required("must name at least one peer")
    if len(peers) > _MOST:
        yield (at / side).too_many(len(peers), _MOST)
    for number, peer in enumerate(peers[:_MOST]):
        yield from _peer(peer, side, (at / side)[number])
    if protocols is not None and not 1 <= len(protocols) <= _MOST:
        yield (at / "protocols").invalid(len(protocols), f"must have from 1 to {_MOST} items")
    for number, protocol in enumerate((protocols or [])[:_MOST]):
        yield from _protocol(protocol, (at / "protocols")[number])
    if any(peer.get("networks") for peer in peers) and any(one.get("destinationNamedPort") for one in protocols or ()):
        yield at.invalid(side, "networks have no named ports: destinationNamedPort may not be set beside them")


def _peer(peer: Raw, side: str, at: Field) -> Iterator[FieldError]:
    if peer.get("networks") is None:
        yield from _selection(peer, at, ("namespaces", "pods", *(("networks",) if side == "to" else ())))
        return
    if side == "from":
        yield (at / "networks").forbidden("only egress rules have networks")
    networks = peer["networks"]
    if not 1 <= len(networks) <= _MOST or len(set(networks)) < len(networks) or len(peer) > 1:
        yield (at / "networks").invalid(
            len(networks), f"must have from 1 to {_MOST} items, none of them twice, and stand alone"
        )
    for number, text in enumerate(networks[:_MOST]):
        if "/" not in text or not _is_network(text):
            yield (at / "networks")[number].invalid(text, "must be a prefix, such as 10.0.0.0/8 or 2001:db8::/32")


def _selection(what: Raw, at: Field, choices: tuple[str, ...]) -> Iterator[FieldError]:
    found = [name for name in choices if what.get(name) is not None]
    if len(found) != 1:
        yield at.invalid(", ".join(found) or "nothing", f"must be exactly one of {', '.join(choices)}")
    if what.get("namespaces") is not None:
        yield from validate_selector(what["namespaces"], at / "namespaces")
    if what.get("pods") is not None:
        for name in ("namespaceSelector", "podSelector"):
            yield from validate_selector(what["pods"].get(name) or {}, at / "pods" / name)


def _protocol(protocol: Raw, at: Field) -> Iterator[FieldError]:
    choices = ("tcp", "udp", "sctp", "destinationNamedPort")
    found = [name for name in choices if protocol.get(name) not in (None, "")]
    if len(found) != 1:
        yield at.invalid(", ".join(found) or "nothing", f"must be exactly one of {', '.join(choices)}")
    if name := protocol.get("destinationNamedPort"):
        yield from ((at / "destinationNamedPort").invalid(name, said) for said in names.port_name(name))
    for kind in choices[:3]:
        port = (protocol.get(kind) or {}).get("destinationPort")
        if port is not None:
            yield from _port(port, at / kind / "destinationPort")


def _port(port: Raw, at: Field) -> Iterator[FieldError]:
    number, span = port.get("number"), port.get("range")
    if (number is None) == (span is None):
        yield at.invalid(number or 0, "must be exactly one of number, range")
    if number is not None:
        yield from ((at / "number").invalid(number, said) for said in names.port_number(number))
    if span is None:
        return
    for name in ("start", "end"):
        yield from ((at / "range" / name).invalid(span.get(name), said) for said in names.port_number(span.get(name)))
    if span.get("start", 0) >= span.get("end", 0):
        yield (at / "range").invalid(span.get("end"), "start must be less than end")


def _is_network(text: str) -> bool:
    try:
        ip_network(text if "%" not in text else "")
    except ValueError:
        return False
    return True


CLUSTER_POLICIES: Final[dict[str, Rules]] = {
    "clusternetworkpolicies.policy.networking.k8s.io": Rules((validate_cluster_policy,))
}
