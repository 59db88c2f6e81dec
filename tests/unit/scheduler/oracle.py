"""The rules of placing, said a second time: slowly, over raw objects, with nothing remembered and nothing shared with the
product. For one pod and one node it looks at every other pod.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Raw = dict[str, Any]

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
SEEN = {"kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch"}
SEEN |= {"topology.kubernetes.io/zone", "topology.kubernetes.io/region"}


class World:
    """Nodes, placed pods (with ``tenant`` and ``node``) and labels of namespaces by (tenant, name)."""

    def __init__(self, nodes: list[Raw], pods: list[Raw], namespaces: dict[tuple[str, str], Raw]) -> None:
        self.nodes, self.pods, self.namespaces = nodes, pods, namespaces

    def fits(self, pod: Raw, node: Raw) -> bool:
        return (
            self.takes(pod, node)
            and self.ports(pod, node)
            and self.room(pod, node)
            and self.spreads(pod, node)
            and self.affine(pod, node)
        )

    # one node

    def labels(self, node: Raw, tenant: str) -> Raw:
        return {k: v for k, v in node["labels"].items() if tenant == "root" or k in SEEN}

    def selected(self, pod: Raw, node: Raw) -> bool:
        labels = self.labels(node, pod["tenant"])
        if any(labels.get(k) != v for k, v in (pod.get("nodeSelector") or {}).items()):
            return False
        required = ((pod.get("affinity") or {}).get("nodeAffinity") or {}).get(REQUIRED)
        if required is None:
            return True
        return any(matches(term.get("matchExpressions", []), labels) for term in required["nodeSelectorTerms"])

    def borne(self, pod: Raw, node: Raw) -> bool:
        taints = [t for t in node["taints"] if t["effect"] != "PreferNoSchedule"]
        if node["unschedulable"]:
            taints.append({"key": "node.kubernetes.io/unschedulable", "value": "", "effect": "NoSchedule"})
        return all(any(tolerates(toleration, t) for toleration in pod.get("tolerations") or []) for t in taints)

    def takes(self, pod: Raw, node: Raw) -> bool:
        return self.borne(pod, node) and self.selected(pod, node)

    def on(self, node: Raw) -> list[Raw]:
        return [p for p in self.pods if p["node"] == node["name"]]

    def ports(self, pod: Raw, node: Raw) -> bool:
        for ip, protocol, number in pod["ports"]:
            for other in self.on(node):
                for ip2, protocol2, number2 in other["ports"]:
                    meets = ip == ip2 or "0.0.0.0" in (ip, ip2)
                    if meets and (protocol, number) == (protocol2, number2):
                        return False
        return True

    def room(self, pod: Raw, node: Raw) -> bool:
        on = self.on(node)
        if len(on) + 1 > node["pods"]:
            return False
        return not pod["cpu"] or sum(p["cpu"] for p in on) + pod["cpu"] <= node["cpu"]

    # spreading

    def spreads(self, pod: Raw, node: Raw) -> bool:
        hard = [c for c in pod.get("spread") or [] if c["whenUnsatisfiable"] == "DoNotSchedule"]
        keys = [c["topologyKey"] for c in hard]
        for constraint in hard:
            key = constraint["topologyKey"]
            if key not in self.labels(node, pod["tenant"]):
                return False
            counts: dict[str, int] = {}
            for other in self.nodes:
                labels = self.labels(other, pod["tenant"])
                if any(k not in labels for k in keys) or not self.counts(pod, other, constraint):
                    continue
                counts.setdefault(labels[key], 0)
                counts[labels[key]] += sum(self.meant(constraint, pod, p) for p in self.on(other))
            least = min(counts.values(), default=0)
            if len(counts) < constraint.get("minDomains", 1):
                least = 0
            itself = select(constraint["labelSelector"], pod["labels"])
            here = counts.get(self.labels(node, pod["tenant"])[key], 0)
            if here + itself - least > constraint["maxSkew"]:
                return False
        return True

    def counts(self, pod: Raw, node: Raw, constraint: Raw) -> bool:
        if constraint.get("nodeAffinityPolicy", "Honor") == "Honor" and not self.selected(pod, node):
            return False
        return constraint.get("nodeTaintsPolicy", "Ignore") == "Ignore" or self.borne(pod, node)

    def meant(self, constraint: Raw, pod: Raw, other: Raw) -> bool:
        same = (other["tenant"], other["namespace"]) == (pod["tenant"], pod["namespace"])
        selector = constraint["labelSelector"]
        return same and not other["leaving"] and bool(selector) and select(selector, other["labels"])

    # affinity between pods

    def affine(self, pod: Raw, node: Raw) -> bool:
        near = terms(pod, "podAffinity")
        labels = self.labels(node, pod["tenant"])
        if any(term["topologyKey"] not in labels for term in near):
            return False
        friends = [p for p in self.pods if near and all(self.means(term, pod, p) for term in near)]
        together = all(self.beside(term, pod, friends, node) for term in near)
        if near and not together:
            anywhere = any(
                term["topologyKey"] in self.labels(self.named(p["node"]), pod["tenant"])
                for p in friends
                for term in near
            )
            if anywhere or not all(self.means(term, pod, pod) for term in near):
                return False
        for term in terms(pod, "podAntiAffinity"):
            if self.beside(term, pod, [p for p in self.pods if self.means(term, pod, p)], node):
                return False
        for other in self.pods:
            for term in terms(other, "podAntiAffinity"):
                if self.means(term, other, pod) and self.beside(term, pod, [other], node):
                    return False
        return True

    def named(self, name: str) -> Raw:
        return next(n for n in self.nodes if n["name"] == name)

    def beside(self, term: Raw, pod: Raw, others: Iterable[Raw], node: Raw) -> bool:
        """Whether one of the others is at the node's place, as the term has it."""
        key, here = term["topologyKey"], self.labels(node, pod["tenant"])
        return key in here and any(
            self.labels(self.named(p["node"]), pod["tenant"]).get(key) == here[key] for p in others
        )

    def means(self, term: Raw, owner: Raw, other: Raw) -> bool:
        if owner["tenant"] != other["tenant"]:
            return False
        names, selector = term.get("namespaces") or [], term.get("namespaceSelector")
        if not names and selector is None:
            names = [owner["namespace"]]
        labels = self.namespaces.get((other["tenant"], other["namespace"]), {})
        if other["namespace"] not in names and not (selector is not None and select(selector, labels)):
            return False
        own = [{"key": k, "operator": "In", "values": [owner["labels"][k]]}
               for k in term.get("matchLabelKeys") or [] if k in owner["labels"]]  # fmt: skip
        return select(term.get("labelSelector"), other["labels"]) and matches(own, other["labels"], empty=True)


def terms(pod: Raw, kind: str) -> list[Raw]:
    found: list[Raw] = ((pod.get("affinity") or {}).get(kind) or {}).get(REQUIRED) or []
    return found


def select(selector: Raw | None, labels: Raw) -> bool:
    if selector is None:
        return False
    if any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    return matches(selector.get("matchExpressions") or [], labels, empty=True)


def matches(clauses: list[Raw], labels: Raw, *, empty: bool = False) -> bool:
    if not clauses:
        return empty
    for clause in clauses:
        value, values = labels.get(clause["key"]), clause.get("values") or []
        good = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not good[clause["operator"]]:
            return False
    return True


def tolerates(toleration: Raw, taint: Raw) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    if toleration["key"] != taint["key"]:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint["value"]
