"""API objects of a small cluster, for tests of compile, render and pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field

from polder.api import core
from polder.api import polder as api
from polder.api.meta import TENANT_ANNOTATION, Object, ObjectMeta, ref_of
from polder.base.ref import Ref
from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.topology.addressing import mac_of

FACTS = NodeFacts("n1", "192.168.7.1", "192.168.7.1", "uplink", 1500, ("192.168.7.254", "10.200.0.0/24"), "polder")


@dataclass
class Counter:
    """Revisions as a store gives them."""

    last: int = 0
    born: dict[str, str] = field(default_factory=dict)

    def meta(self, tenant: str, namespace: str, name: str, **more: object) -> ObjectMeta:
        self.last += 1
        key = f"{tenant}:{namespace}/{name}"
        born = self.born.setdefault(key, f"2026-01-01T00:00:{len(self.born):02d}Z")
        return ObjectMeta(
            name=name,
            namespace=namespace,
            uid=f"uid-of-{key}",
            resource_version=str(self.last),
            creation_timestamp=born,
            annotations={TENANT_ANNOTATION: tenant},
            **more,  # type: ignore[arg-type]
        )


class Objects:
    """Makes objects; each call is a newer revision."""

    def __init__(self) -> None:
        self.counter = Counter()

    def node(self, name: str, underlay: str) -> core.Node:
        addresses = [core.NodeAddress(type="InternalIP", address=underlay)] if underlay else []
        return core.Node(metadata=self.counter.meta("root", "", name), status=core.NodeStatus(addresses=addresses))

    def tenant(self, name: str, service_cidr: str = "10.96.0.0/16") -> api.Tenant:
        return api.Tenant(metadata=self.counter.meta("root", "", name), spec=api.TenantSpec(service_cidr=service_cidr))

    def router(self, tenant: str, service_cidr: str = "10.96.0.0/16") -> api.Router:
        meta = self.counter.meta(tenant, "kube-system", "default")
        return api.Router(metadata=meta, spec=api.RouterSpec(service_cidr=service_cidr))

    def transit(self, tenant: str, node: str, address: str, **meta: object) -> api.Port:
        spec = api.PortSpec(network="kube-system/transit", node=node, addresses=[address], router_of=tenant)
        return api.Port(metadata=self.counter.meta("root", "kube-system", f"router.{tenant}.{node}", **meta), spec=spec)

    def network(self, tenant: str, name: str, cidr: str, vni: int, **spec: object) -> api.Network:
        return api.Network(
            metadata=self.counter.meta(tenant, "default", name),
            spec=api.NetworkSpec(cidr=cidr, **spec),  # type: ignore[arg-type]
            status=api.NetworkStatus(vni=vni),
        )

    def port(self, tenant: str, name: str, node: str, address: str, **more: str) -> api.Port:
        """``network`` (default a), ``mac``, ``sandbox`` as keywords."""
        sandbox = more.get("sandbox", "")
        status = api.PortStatus(sandbox=sandbox, netns=f"/run/{sandbox}", link=f"p{sandbox}"[:15]) if sandbox else None
        return api.Port(
            metadata=self.counter.meta(tenant, "default", f"{name}.eth0"),
            spec=api.PortSpec(
                network=f"default/{more.get('network', 'a')}",
                node=node,
                pod=name,
                pod_uid=name,
                addresses=[address] if address else [],
                mac=more.get("mac") or (mac_of(address) if address else ""),
            ),
            status=status or api.PortStatus(),
        )


def ref(obj: Object) -> Ref:
    return ref_of(obj)


def small_cluster() -> list[Object]:
    """Two nodes; acme on both with two networks and an isolated one, globex on n2 alone."""
    make = Objects()
    return [
        make.node("n1", "192.168.7.1"),
        make.node("n2", "192.168.7.2"),
        make.tenant("acme"),
        make.router("acme"),
        make.transit("acme", "n1", "100.64.0.1"),
        make.transit("acme", "n2", "100.64.0.2"),
        make.network("acme", "a", "10.0.0.0/16", 0x1001),
        make.network("acme", "b", "10.1.0.0/24", 0x1002, mtu=1400),
        make.network("acme", "island", "10.0.0.0/24", 0x1003, router=""),
        make.port("acme", "web", "n1", "10.0.0.2", sandbox="sb1"),
        make.port("acme", "far", "n2", "10.0.0.3", sandbox="sb2"),
        make.port("acme", "other", "n1", "10.1.0.2", network="b", sandbox="sb3"),
        make.port("acme", "alone", "n1", "10.0.0.2", network="island", sandbox="sb4"),
        make.port("acme", "waiting", "n1", "10.0.0.9"),
        make.router("globex"),
        make.transit("globex", "n2", "100.64.0.3"),
        make.network("globex", "a", "10.0.0.0/16", 0x1004),
        make.port("globex", "web", "n2", "10.0.0.2", sandbox="sb5"),
    ]
