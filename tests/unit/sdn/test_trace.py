"""``polder trace``: what a question means, and which rule the answer names."""

from __future__ import annotations

import pytest

from polder.sdn.topology.policies import Policy
from polder.sdn.topology.trace import Question, QuestionError, answer, parse
from polder.sdn.topology.types import Part, Port
from polder.sdn.topology.vips import Backend, Vip, VipPort
from tests.unit.sdn.policy_world import PODS, World, cluster, policy

CLIENT = "default/client"


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("acme/default/client → web:80", Question("acme", CLIENT, "default/web", 80)),
        ("acme/default/client->web:80", Question("acme", CLIENT, "default/web", 80)),
        ("acme/default/client to shop/web:53/udp", Question("acme", CLIENT, "shop/web", 53, "UDP")),
        ("acme/default/client to pod/shop/web:53/udp", Question("acme", CLIENT, "shop/web", 53, "UDP", "pod")),
        ("acme/default/client to svc/web:53", Question("acme", CLIENT, "default/web", 53, kind="service")),
        ("acme/default/client to 10.0.0.7:53", Question("acme", CLIENT, "10.0.0.7", 53)),
        ("acme/default/client to fd00::7", Question("acme", CLIENT, "fd00::7")),
        ("acme/default/client to [fd00::7]:443/tcp", Question("acme", CLIENT, "fd00::7", 443)),
        ("acme/default/client to pod/tcp", Question("acme", CLIENT, "default/tcp", kind="pod")),
        ("acme/default/client to web/icmp", Question("acme", CLIENT, "default/web", 0, "ICMP")),
    ],
)
def test_a_question_is_read(text: str, question: Question) -> None:
    assert parse(text) == question


@pytest.mark.parametrize("text", ["", "acme/client → web", "acme/default/client web", "acme/default/client → web:http"])
def test_what_is_no_question_is_told(text: str) -> None:
    with pytest.raises(QuestionError):
        parse(text)


def parts(*policies: dict[str, object]) -> list[Part]:
    world = World()
    world.apply(list(policies))
    ports = [Port("acme", p.full, f"default/{p.network}", p.node, p.addresses, "", p.full) for p in PODS]
    backends = tuple(Backend(p.addresses[0], 80) for p in PODS if p.name == "a")
    vip = Vip("acme", "y/web", ("10.96.7.7",), ("10.96.7.7",), (VipPort("tcp", 8000, ready=backends),))
    return [*world.parts(), *ports, vip]


def test_the_rule_that_decides_is_named_at_both_ends() -> None:
    known = parts(
        policy("x", "out", policyTypes=["Egress"], egress=[{"ports": [{"port": 81}]}, {"ports": [{"port": 80}]}]),
        policy("y", "in", podSelector={"matchLabels": {"pod": "b"}}),
        cluster(
            "log",
            "Admin",
            1,
            {"namespaces": {}},
            egress=[{"name": "later", "action": "Pass", "to": [{"namespaces": {}}]}],
        ),
    )
    first = answer(parse("acme/x/a → pod/y/b:80"), known)
    assert [one.packet.destination for one in first] == ["10.0.1.12", "fd00:10:0:1::c"]
    assert not any(one.allowed for one in first)
    out, into = first[0].decisions
    assert out.allowed
    assert out.reason == "egress rule 2 of NetworkPolicy x/out accepts it"
    assert out.passed == ("egress rule 1 (later) of ClusterNetworkPolicy log",)
    assert into.reason == "isolated by NetworkPolicy y/in, no rule of which accepts it"
    assert not answer(parse("acme/x/a → pod/y/a:82"), known)[0].allowed
    assert answer(parse("acme/x/a → 10.0.1.11:81"), known)[0].allowed


def test_a_service_is_answered_for_each_of_its_backends() -> None:
    known = parts(policy("z", "deny"))
    for target in ("y/web:8000", "10.96.7.7:8000"):
        found = answer(parse(f"acme/x/a → {target}"), known)
        assert [(one.destination, one.allowed) for one in found] == [
            ("service y/web, backend pod x/a", True),
            ("service y/web, backend pod y/a", True),
            ("service y/web, backend pod z/a", False),
        ]
    with pytest.raises(QuestionError, match="it has 8000/tcp"):
        answer(parse("acme/x/a → y/web:80"), known)
    with pytest.raises(QuestionError, match="no pod or service x/nobody"):
        answer(parse("acme/x/a → nobody:80"), known)
    with pytest.raises(QuestionError, match="no pod x/nobody"):
        answer(parse("acme/x/nobody → a:80"), known)


def test_policies_and_groups_have_a_canonical_text_that_is_read_back() -> None:
    from polder.sdn.topology import text

    known = [
        one for one in parts(policy("x", "in", ingress=[{"ports": [{"port": "web"}]}])) if not isinstance(one, Port)
    ]
    topology = text.assemble("acme", known)
    assert any(isinstance(one, Policy) for one in topology.policies)
    assert text.parse(text.dump(topology)) == topology
