"""What is for a group comes to every port of a network, and to sockets that have joined nothing (224.0.0.1, ff02::1): so it would
pass by the rules that say who is let in to a pod, which name addresses.
"""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from polder.sdn.topology.policies import Group, GroupMember, Peer, Policy, PolicyRule
from tests.system.lab import Host, Lab
from tests.system.test_multicast import heard, room, talk

pytestmark = pytest.mark.system
EVERYBODY = ("224.0.0.1", "ff02::1")


def reached(pods: dict[str, Host], group: str) -> set[str]:
    """Who of acme hears what its talker says to a group, without having joined one."""
    family = socket.AF_INET6 if ":" in group else socket.AF_INET
    listeners = {name: pods[f"acme.{name}"].socket(family, socket.SOCK_DGRAM) for name in ("near", "far")}
    try:
        for sock in listeners.values():
            sock.bind(("", 5353))
        talk(pods["acme.talker"], group, b"hello", 3)
        return {name for name, sock in listeners.items() if heard(sock)}
    finally:
        for sock in listeners.values():
            sock.close()


async def test_an_isolated_pod_hears_nothing_that_is_said_to_all(lab: Lab) -> None:
    pods = await room(lab)
    for group in EVERYBODY:
        assert reached(pods, group) == {"near", "far"}, "control: free without policies"
    members = [
        GroupMember(f"default/{name}", "default/a", (f"10.0.1.{host}", f"fd00:1::{host}"))
        for name, host in (("near", "11"), ("far", "12"))
    ]
    lab.put(Group("acme", "/near", False, False, (members[0],)))
    lab.put(Group("acme", "/far", False, False, (members[1],)))
    allow = Policy("acme", "default/allow", "default", "far", ingress=(PolicyRule("accept", anyone=True),))
    deny = Policy("acme", "default/deny", "network", "near", isolates=("ingress",))
    lab.put(deny)
    lab.put(allow)
    await lab.deploy()
    await lab.verify()
    for group in EVERYBODY:
        assert reached(pods, group) == {"far"}
    some = PolicyRule("deny", (Peer(block="10.9.0.0/16"),))
    lab.put(replace(allow, tier="admin", ingress=(some,)))
    lab.put(replace(deny, isolates=("egress",)))
    await lab.deploy()
    await lab.verify()
    for group in EVERYBODY:
        assert reached(pods, group) == {"near"}
