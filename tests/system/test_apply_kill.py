"""``kill -9`` at lines all over the way: observe and apply converge, and removing leaves nothing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from polder.sdn.apply.linux.kernel import Kernel, KernelSettings
from polder.sdn.render.linux.items import (
    Addr,
    Bridge,
    Chain,
    Element,
    Fdb,
    Item,
    NamedSet,
    Neigh,
    PortLink,
    Route,
    Ruleset,
    Space,
    Sysctl,
    Transit,
    Vxlan,
)
from polder.sdn.render.linux.policy_rules import POLICY_TABLE, TEXT
from polder.sdn.render.linux.text import dump
from polder.system.net import dumps
from polder.system.net.netns import list_netns, remove_netns
from tests.system.lab import Host

pytestmark = pytest.mark.system
SAMPLES = 24
RULES = """\
 set ports4 { type ifname . ether_addr . ipv4_addr; }
 chain prerouting {
  type filter hook prerouting priority -400; policy drop;
  ether type ip iifname . ether saddr . ip saddr @ports4 accept
 }
"""


def port(link: str, sandbox: str, last: int) -> set[Item]:
    mac, address = f"0a:58:0a:00:00:{last:02x}", f"10.0.0.{last}"
    return {
        PortLink("acme", link, "br-1", 1450, f"port {link}", sandbox, "eth0", mac, (f"{address}/24",), ("10.0.0.1",)),
        Fdb("acme", link, mac),
        Neigh("acme", "br-1", address, mac),
        Element("acme", "bridge", "polder", "ports4", f"{link} . {mac} . {address}"),
    }


def policies() -> set[Item]:
    """One port's way through the policy that isolates it."""
    at = ("acme", "inet", POLICY_TABLE)
    return {
        Ruleset(*at, TEXT),
        NamedSet(*at, "g.friends4", "ipv4_addr"),
        Chain(*at, "p.ingress.friends", "ip saddr @g.friends4 tcp dport { 80, 8000-8010 } accept"),
        Chain(*at, "c.ingress.some", "jump p.ingress.friends\ncounter drop"),
        Element(*at, "g.friends4", "10.0.0.3"),
        Element(*at, "ingress4", "10.0.0.2", "goto c.ingress.some"),
    }


def router() -> set[Item]:
    return policies() | {
        Space("acme", "router acme"),
        Sysctl("acme", "net/ipv4/ip_forward", "1"),
        Ruleset("acme", "bridge", "polder", RULES),
        Ruleset("", "inet", "kill", " set transit { type ifname . ipv4_addr; }\n chain c { }\n"),
        Element("", "inet", "kill", "transit", "kill+1 . 100.64.0.7"),
        Bridge("acme", "br-1", "0a:58:0a:00:00:01", 1450, "network a"),
        Vxlan("acme", "vx-1", 0x111, "0e:58:64:40:00:07", 1450, "br-1", "192.168.0.1", "network a"),
        Transit("acme", "up", "kill+1", 1500, "router acme", "0a:58:64:40:00:07", "0a:58:a9:fe:01:01"),
        Addr("acme", "br-1", "10.0.0.1", 24),
        Addr("acme", "up", "100.64.0.7", 32),
        Addr("", "kill+1", "169.254.1.1", 32),
        Route("acme", "0.0.0.0/0", "up", "169.254.1.1", "100.64.0.7", True),
        Route("", "100.64.0.7/32", "kill+1"),
        Neigh("", "kill+1", "100.64.0.7", "0a:58:64:40:00:07"),
        Fdb("acme", "vx-1", "0a:58:0a:00:00:63", "192.168.0.2"),
        Fdb("acme", "vx-1", "0a:58:0a:00:00:63"),
    }


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    hosts = [Host(name, tmp_path / name) for name in ("node", "pod-one", "pod-two")]
    try:
        yield hosts
    finally:
        for host in hosts:
            host.close()
        for name in list_netns(tmp_path / "routers"):
            remove_netns(tmp_path / "routers" / name)


def configured(pod: Host) -> set[str]:
    """Addresses and the default route of a pod's link that is up."""
    eth0 = pod.link("eth0")
    assert eth0.up
    found = {one.address for one in dumps.addresses(pod.route) if one.index == eth0.index and one.scope == 0}
    return found | {one.destination for one in dumps.routes(pod.route) if one.destination.endswith("/0")}


def churned(directory: Path, at: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.system.churn", str(directory), str(at)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_killed_anywhere_it_converges_and_leaves_nothing(tmp_path: Path, hosts: list[Host]) -> None:
    node, *pods = hosts
    wanted = frozenset(
        router() | port("p-one", str(tmp_path / "pod-one"), 5) | port("p-two", str(tmp_path / "pod-two"), 6)
    )
    (tmp_path / "items").write_text(dump(wanted))
    whole = churned(tmp_path, 10**9)
    assert whole.returncode == 0, whole.stderr
    lines, failures = whole.stdout.split(" ", 1)
    assert failures.strip() == "[]"
    kernel = Kernel(KernelSettings(tmp_path / "routers", "kill", node.path))
    chosen = random.Random(2).sample(range(1, int(lines)), SAMPLES)
    ended = []
    for at in chosen:
        ended.append(churned(tmp_path, at).returncode)
        seen = await kernel.observe(wanted)
        failed = await kernel.apply(seen - wanted, wanted - seen)
        assert not failed, (at, [str(one) for one in failed])
        seen = await kernel.observe(wanted)
        assert (wanted - seen, seen - wanted) == (frozenset(), frozenset()), at
        assert [configured(pod) for pod in pods] == [{"10.0.0.5", "0.0.0.0/0"}, {"10.0.0.6", "0.0.0.0/0"}], at
        assert [str(one) for one in await kernel.apply(wanted, [])] == []
        await kernel.wait_gone(wanted)
        assert {type(item) for item in await kernel.observe(wanted)} <= {Sysctl}, at
        assert [link.name for link in dumps.links(node.route)] == ["lo"], at
        assert list_netns(tmp_path / "routers") == []
    await kernel.close()
    assert set(ended) <= {-signal.SIGKILL, 0}
    assert ended.count(0) < SAMPLES / 3, (
        "ways are not of one length, as the kernel's answers come in parts: some ended before"
    )
