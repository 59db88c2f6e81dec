"""Policies to try, each after a spec of upstream's NetworkPolicy suite or a sentence of the API."""

from __future__ import annotations

from tests.unit.sdn.policy_world import Raw, cluster, default, policy

A, B, ODD = ({"matchLabels": {"pod": "a"}}, {"matchLabels": {"pod": "b"}}, {"matchLabels": {"odd": "yes"}})
X, Y, Z = ({"matchLabels": {"ns": one}} for one in "xyz")
NOT_Y = {"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["y"]}]}
EVEN = {"matchExpressions": [{"key": "odd", "operator": "DoesNotExist"}]}
BOTH = {"policyTypes": ["Ingress", "Egress"]}
EGRESS = {"policyTypes": ["Egress"]}
ALL_TCP = {"protocol": "TCP"}

CASES: dict[str, list[Raw]] = {
    "nothing": [],
    "deny ingress": [policy("x", "deny")],
    "deny egress": [policy("x", "deny", **EGRESS)],
    "deny both": [policy("x", "deny", **BOTH)],
    "allow all over deny": [policy("x", "deny"), policy("x", "all", ingress=[{}])],
    "empty selector of pods means the namespace": [policy("x", "own", ingress=[{"from": [{"podSelector": {}}]}])],
    "a pod by labels": [policy("x", "by-pod", podSelector=A, ingress=[{"from": [{"podSelector": B}]}])],
    "a namespace by labels": [policy("x", "by-ns", podSelector=A, ingress=[{"from": [{"namespaceSelector": Y}]}])],
    "every namespace": [policy("x", "any-ns", ingress=[{"from": [{"namespaceSelector": {}}]}])],
    "a namespace by an expression": [policy("x", "not-y", ingress=[{"from": [{"namespaceSelector": NOT_Y}]}])],
    "pods by an expression": [
        policy("x", "even", ingress=[{"from": [{"podSelector": EVEN, "namespaceSelector": {}}]}])
    ],
    "pods and namespaces": [policy("x", "and", ingress=[{"from": [{"namespaceSelector": Y, "podSelector": A}]}])],
    "pods or namespaces": [policy("x", "or", ingress=[{"from": [{"namespaceSelector": Y}, {"podSelector": A}]}])],
    "one port": [policy("x", "port", ingress=[{"ports": [{"port": 81}]}])],
    "two policies on two ports": [
        policy("x", "p80", podSelector=A, ingress=[{"from": [{"namespaceSelector": Y}], "ports": [{"port": 80}]}]),
        policy("x", "p81", podSelector=A, ingress=[{"from": [{"namespaceSelector": Z}], "ports": [{"port": 81}]}]),
    ],
    "a range of ports": [
        policy("y", "range", ingress=[{"ports": [{"port": 81, "endPort": 90}, {"port": 70, "endPort": 79}]}])
    ],
    "overlapping ports": [
        policy(
            "y", "over", ingress=[{"ports": [{"port": 79, "endPort": 80}, {"port": 80}, {"port": 80, "endPort": 82}]}]
        )
    ],
    "a named port": [policy("x", "named", ingress=[{"ports": [{"port": "web"}]}])],
    "a named port in egress is the receiver's": [
        policy("x", "named", **EGRESS, egress=[{"to": [{"namespaceSelector": {}}], "ports": [{"port": "web"}]}])
    ],
    "a named port of UDP": [policy("x", "named", ingress=[{"ports": [{"port": "dns", "protocol": "UDP"}]}])],
    "a name that nobody has": [policy("x", "named", ingress=[{"ports": [{"port": "none"}]}])],
    "UDP alone": [policy("x", "udp", ingress=[{"ports": [{"protocol": "UDP", "port": 80}]}])],
    "all of TCP": [policy("x", "tcp", ingress=[{"ports": [ALL_TCP]}])],
    "SCTP alone": [policy("x", "sctp", ingress=[{"ports": [{"protocol": "SCTP", "port": 80}]}])],
    "a block": [policy("x", "block", ingress=[{"from": [{"ipBlock": {"cidr": "10.0.1.0/24"}}]}])],
    "a block without a part": [
        policy(
            "x",
            "block",
            ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.1.8/29", "10.0.1.12/32"]}}]}],
        )
    ],
    "blocks of both families, overlapping": [
        policy(
            "x",
            "blocks",
            **EGRESS,
            egress=[
                {
                    "to": [
                        {"ipBlock": {"cidr": "10.0.0.0/16"}},
                        {"ipBlock": {"cidr": "10.0.2.0/24"}},
                        {"ipBlock": {"cidr": "fd00:10:0:2::/64"}},
                        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}},
                    ]
                }
            ],
        )
    ],
    "what a block leaves out another rule allows": [
        policy(
            "x",
            "one",
            ingress=[
                {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.1.13/32"]}}]},
                {"from": [{"namespaceSelector": Y}]},
            ],
        )
    ],
    "egress to a pod": [policy("y", "out", **EGRESS, egress=[{"to": [{"podSelector": A}]}])],
    "egress to a namespace, both ends": [
        policy("x", "out", podSelector=A, **EGRESS, egress=[{"to": [{"namespaceSelector": Y}]}]),
        policy("y", "in", podSelector=A, ingress=[{"from": [{"namespaceSelector": X}]}]),
    ],
    "egress with rules and no types": [policy("x", "types", egress=[{"to": [{"namespaceSelector": Z}]}])],
    "ingress with egress rules that do not count": [
        policy("x", "types", policyTypes=["Ingress"], egress=[{"to": [{"namespaceSelector": Z}]}])
    ],
    "an empty rule list of egress": [policy("x", "types", **EGRESS, egress=[])],
    "many in one": [
        policy(
            "x",
            "many",
            podSelector=ODD,
            **BOTH,
            ingress=[
                {
                    "from": [{"podSelector": B}, {"namespaceSelector": Z, "podSelector": A}],
                    "ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}],
                },
                {"from": [{"namespaceSelector": Y}], "ports": [{"port": "web"}]},
            ],
            egress=[{"to": [{"namespaceSelector": {}}], "ports": [{"port": 80, "endPort": 81}]}],
        )
    ],
    "admin denies": [
        cluster("deny", "Admin", 10, {"namespaces": X}, ingress=[{"action": "Deny", "from": [{"namespaces": Y}]}])
    ],
    "admin denies what a policy allows": [
        policy("x", "all", ingress=[{}]),
        cluster(
            "deny",
            "Admin",
            10,
            {"namespaces": X},
            ingress=[{"action": "Deny", "from": [{"pods": {"namespaceSelector": {}, "podSelector": A}}]}],
        ),
    ],
    "admin accepts what a policy forbids": [
        policy("x", "deny", **BOTH),
        cluster(
            "let",
            "Admin",
            10,
            {"pods": {"namespaceSelector": X, "podSelector": A}},
            ingress=[
                {
                    "action": "Accept",
                    "from": [{"namespaces": Z}],
                    "protocols": [{"tcp": {"destinationPort": {"number": 80}}}],
                }
            ],
        ),
    ],
    "priorities": [
        cluster(
            "first",
            "Admin",
            5,
            {"namespaces": {}},
            ingress=[{"action": "Accept", "from": [{"namespaces": Y}], "protocols": [{"tcp": {}}]}],
        ),
        cluster("second", "Admin", 6, {"namespaces": X}, ingress=[{"action": "Deny", "from": [{"namespaces": {}}]}]),
    ],
    "pass skips the rest of the tier": [
        policy("x", "only-z", ingress=[{"from": [{"namespaceSelector": Z}]}]),
        cluster(
            "pass",
            "Admin",
            5,
            {"namespaces": X},
            ingress=[{"action": "Pass", "from": [{"namespaces": Y}, {"namespaces": Z}]}],
        ),
        cluster("let", "Admin", 6, {"namespaces": X}, ingress=[{"action": "Accept", "from": [{"namespaces": {}}]}]),
    ],
    "baseline": [
        policy("y", "from-x", podSelector=A, ingress=[{"from": [{"namespaceSelector": X}]}]),
        cluster(
            "base",
            "Baseline",
            10,
            {"namespaces": {}},
            ingress=[
                {"action": "Accept", "from": [{"namespaces": Z}]},
                {"action": "Deny", "from": [{"namespaces": {}}]},
            ],
        ),
    ],
    "admin passes to baseline": [
        cluster(
            "pass",
            "Admin",
            1,
            {"namespaces": X},
            egress=[
                {"action": "Pass", "to": [{"namespaces": Y}]},
                {"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]},
            ],
        ),
        cluster(
            "base",
            "Baseline",
            1,
            {"namespaces": X},
            egress=[{"action": "Deny", "to": [{"pods": {"namespaceSelector": {}, "podSelector": B}}]}],
        ),
    ],
    "admin by ports": [
        cluster(
            "ports",
            "Admin",
            1,
            {"namespaces": {}},
            egress=[
                {
                    "action": "Accept",
                    "to": [{"namespaces": {}}],
                    "protocols": [{"destinationNamedPort": "web"}, {"udp": {}}],
                },
                {
                    "action": "Deny",
                    "to": [{"networks": ["10.0.0.0/8", "fd00::/8"]}],
                    "protocols": [{"tcp": {"destinationPort": {"range": {"start": 80, "end": 81}}}}],
                },
            ],
        ),
    ],
    "a namespace's default": [default("x", "deny-ingress"), policy("x", "a", podSelector=A, ingress=[{}])],
    "a tenant's default and a namespace that is open": [
        default("kube-system", "deny"),
        default("y", "allow"),
        default("z", "namespace"),
    ],
    "baseline before defaults": [
        default("kube-system", "deny"),
        cluster(
            "base",
            "Baseline",
            1,
            {"namespaces": {}},
            ingress=[{"action": "Accept", "from": [{"namespaces": X}]}],
            egress=[{"action": "Pass", "to": [{"namespaces": Z}]}, {"action": "Accept", "to": [{"namespaces": {}}]}],
        ),
    ],
    "many peers times many ports": [
        policy(
            "x",
            "product",
            policyTypes=["Ingress", "Egress"],
            ingress=[
                {
                    "from": [
                        {"podSelector": B},
                        {"ipBlock": {"cidr": "10.0.2.0/24", "except": ["10.0.2.13/32"]}},
                        *(
                            {"namespaceSelector": Y, "podSelector": {"matchLabels": {"pod": f"p{n}"}}}
                            for n in range(30)
                        ),
                        {"namespaceSelector": Y, "podSelector": A},
                    ],
                    "ports": [{"port": "web"}, {"port": "dns", "protocol": "UDP"}, {"port": 81, "protocol": "UDP"}],
                }
            ],
            egress=[
                {
                    "to": [
                        {"namespaceSelector": Z},
                        *({"ipBlock": {"cidr": f"10.9.{n}.0/24", "except": [f"10.9.{n}.7/32"]}} for n in range(20)),
                    ],
                    "ports": [{"port": "web"}, {"port": 80, "protocol": "UDP"}, {"protocol": "SCTP"}],
                }
            ],
        )
    ],
}
