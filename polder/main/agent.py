"""`polder agent`: a node's pods and network, composed."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from importlib.metadata import version
from pathlib import Path

from polder.api.core import Namespace, Pod, Service
from polder.api.discovery import EndpointSlice
from polder.api.meta import tenant_of
from polder.api.polder import Port, Tenant
from polder.api.sysctls import is_pods_own
from polder.base.clock import SystemClock
from polder.base.errors import PermanentError
from polder.base.ids import EVERY_TENANT, ROOT, NodeName, TenantName
from polder.base.ref import Ref
from polder.client.client import Client, ClientSettings
from polder.client.informer import Informer
from polder.cni.install import install
from polder.cni.server import CniServer
from polder.dns.feed import Views, feed
from polder.dns.forward import upstream_of
from polder.dns.link import Link, LinkSettings
from polder.main.cni import CniAttachments
from polder.main.config import AgentConfig, load
from polder.main.daemon import run
from polder.main.files import open_files
from polder.main.join import Joining, ensure_joined, link_with, own_name
from polder.main.logs import set_up
from polder.node.admin import AdminServer, Inspection
from polder.node.agent import Agent, AgentSettings, Doings
from polder.node.changes import Changes
from polder.node.checks import HealthChecks
from polder.node.dial import Dials, is_address
from polder.node.entry import Entries
from polder.node.eviction.thresholds import parse_thresholds
from polder.node.names import Names
from polder.node.network import NetworkSettings, NodeNetwork
from polder.node.pods.resolv import parse_resolv_conf
from polder.node.renewal import Files, Renewal
from polder.node.stream import ServerStreams
from polder.sdn.apply.linux.kernel import Kernel
from polder.sdn.apply.linux.spaces import KernelSettings
from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.topology.invariants import parse_ip
from polder.system.cri_types import DnsConfig
from polder.system.net.device import link_mtu
from polder.system.net.netns import own_netns
from polder.system.net.sockets import resolver_sockets
from polder.system.pki import settle_pair

RESOLV_CONF = Path("/etc/resolv.conf")


def facts_of(config: AgentConfig) -> NodeFacts:
    """What the network must know of this node. Raises PermanentError."""
    shared = parse_ip(config.shared_dns)
    if config.shared_dns and (shared is None or shared.version != 4):
        raise PermanentError(f"sharedDns: {config.shared_dns!r} is no IPv4 address of a node, such as 192.0.2.5")
    six = parse_ip(config.egress_address6)
    if config.egress_address6 and (six is None or six.version != 6 or six.is_link_local):
        raise PermanentError(
            f"egressAddress6: {config.egress_address6!r} is no IPv6 address of a node, such as 2001:db8::5"
        )
    return NodeFacts(
        name=config.node,
        underlay=config.address,
        egress=config.egress_address or config.address,
        uplink=config.uplink,
        mtu=link_mtu(config.uplink),
        protected=tuple(config.protected),
        prefix=config.prefix,
        egress6=config.egress_address6,
        shared_dns=config.shared_dns,
    )


def host_dns() -> DnsConfig:
    """The machine's own resolv.conf."""
    try:
        return parse_resolv_conf(RESOLV_CONF.read_text())
    except (OSError, UnicodeDecodeError):
        return DnsConfig()


def name_servers() -> list[str]:
    """The DNS servers of the machine."""
    return [server for server in host_dns().servers if is_address(server)]


def dns_settings(config: AgentConfig) -> LinkSettings:
    """The resolver's process. Raises PermanentError."""
    for text in config.dns_upstreams:
        try:
            upstream_of(text)
        except ValueError as error:
            raise PermanentError(
                f"configuration: dnsUpstreams has {text!r}, which is no ADDRESS or ADDRESS#PORT"
            ) from error
    upstreams = tuple(config.dns_upstreams or name_servers())
    return LinkSettings(Path(config.state) / "dns", upstreams, release=f"v{version('polder')}")


def agent_settings(config: AgentConfig) -> AgentSettings:
    """What running pods needs to know."""
    return AgentSettings(
        node=NodeName(config.node),
        state=Path(config.state),
        prefix=config.prefix,
        address=config.address,
        version=f"v{version('polder')}",
        images=Path(config.images),
        cpu=config.cpu,
        memory=config.memory,
        max_pods=config.max_pods,
        reserved=config.reserved,
        thresholds=parse_thresholds(config.eviction_hard),
        host_dns=host_dns(),
        sysctls=allowed_sysctls(config.allowed_unsafe_sysctls),
        static_pods=Path(config.static_pods) if config.static_pods else None,
    )


def allowed_sysctls(patterns: list[str]) -> tuple[str, ...]:
    """Those of the configuration. Raises PermanentError for one that reaches further than a pod."""
    for pattern in patterns:
        if not is_pods_own(pattern):
            raise PermanentError(
                f"configuration: allowedUnsafeSysctls has {pattern!r}, which is not of a pod's own namespaces"
            )
    return tuple(patterns)


def doings_of(network: NodeNetwork, shared_dns: str) -> Doings:
    """What the network does for pods, and what it knows of their tenants."""
    services, tenants = network.informer(Service), network.informer(Tenant)
    services.add_index("namespace", lambda found: [(tenant_of(found.metadata), found.metadata.namespace)])

    def uid_of(tenant: TenantName) -> str:
        found = tenants.get(Ref(ROOT, "", tenant))
        return found.metadata.uid if found is not None else ""

    return Doings(
        network.prepare,
        lambda tenant: shared_dns or network.resolver_of(tenant),
        uid_of,
        lambda tenant, namespace: services.by_index("namespace", (tenant, namespace)),
    )


class NodeAgent:
    """The composition: every part made once, from the configuration."""

    def __init__(self, config: AgentConfig) -> None:
        state, clock = Path(config.state), SystemClock()
        where = ClientSettings(
            config.server, config.authority, config.certificate, config.key, others=tuple(config.other_servers)
        )
        self._client = Client(where)
        files = Files(Path(config.authority), Path(config.certificate), Path(config.key))
        self._renewal = Renewal(config.node, config.address, files, self._client)
        self._pods: Informer[Pod] = Informer(self._client, Pod, EVERY_TENANT, fields=f"spec.nodeName={config.node}")
        self._netns = state / "netns"
        self._kernel = Kernel(KernelSettings(state / "netns", config.prefix))
        self._network = NodeNetwork(
            NetworkSettings(facts_of(config), state), self._client, self._kernel, self._pods, clock
        )
        settings = agent_settings(config)
        doings = doings_of(self._network, config.shared_dns)
        self._agent = Agent(settings, self._client, self._pods, doings, clock)
        self._shared_dns = config.shared_dns
        self._resolvers = Link(dns_settings(config), self._kernel.resolver_sockets_in)
        dials = Dials(self._network.router_of, self._kernel.connect_in, Names(name_servers, self._datagram).lookup)
        self._stream = ServerStreams(where, {**self._agent.handlers, "dial": dials.serve})
        self._changes = Changes(self._stream.open, self._agent.changed)
        self._checks = HealthChecks(
            self._network.informer(Service).values,
            self._network.pipeline.part,
            self._network.router_of,
            self._kernel.listen_in,
            config.node,
        )
        self._entries = Entries(self._kernel.listen_in, self._stream.open)
        self._cni = CniServer(state / "agent.sock", CniAttachments(self._network.attachments))
        self._admin = AdminServer(state / "admin.sock", self._inspect)
        install(settings.containerd.cni_bin, settings.containerd.cni_conf, state / "agent.sock")

    async def _datagram(self, space: str, source: str, address: str, port: int) -> socket.socket:
        return await self._kernel.connect_in(space, address, port, source, datagram=True)

    async def _inspect(self, tenant: str) -> Inspection:
        found = await self._network.pipeline.inspect(tenant)
        lines = [f"missing  {line}" for line in found.missing.splitlines()]
        lines += [f"surplus  {line}" for line in found.surplus.splitlines()]
        lines += [f"problem  {line}" for line in found.problems]
        drops = await self._network.pipeline.drops(tenant)
        told = "\n".join(f"{one[0]} packets, {one[1]} bytes: {who}" for who, one in sorted(drops.items()) if one[0])
        present = tenant in self._network.pipeline.entries()
        return Inspection(tenant, present, found.topology, found.desired, "\n".join(lines), told)

    async def _own_sockets(self, _: str, address: str, port: int) -> tuple[socket.socket, socket.socket]:
        with own_netns() as here:
            return await asyncio.to_thread(resolver_sockets, here, address, port)

    def _names(self) -> Views:
        seen = self._network.informer
        return Views(seen(Service), seen(EndpointSlice), seen(Namespace), seen(Port))

    async def _sandboxes(self) -> frozenset[str]:
        return frozenset(sandbox.id for sandbox in await self._agent.cri.list_sandboxes())

    async def run(self) -> None:
        """Until cancelled. Pods, containerd and the datapath live on."""
        await self._cni.start()
        await self._admin.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pods.run())
                group.create_task(self._network.run(self._entries.set, self._sandboxes))
                group.create_task(self._checks.run(self._network.changes(), Path(self._netns)))
                group.create_task(self._network.keep_resolvers(self._resolvers.set, self._resolvers.share))
                group.create_task(feed(self._names(), self._resolvers))
                group.create_task(self._resolvers.open_shared(self._shared_dns, self._own_sockets))
                group.create_task(self._stream.run())
                group.create_task(self._changes.run())
                group.create_task(self._agent.run())
                group.create_task(self._renewal.run())
        finally:
            await self._admin.stop()
            await self._cni.close()
            await self._entries.close()
            self._resolvers.close()
            await self._kernel.close()
            await self._client.close()


async def serve(config: AgentConfig) -> None:
    """Runs the node until cancelled."""
    await NodeAgent(config).run()


def _become_joined(args: argparse.Namespace) -> None:
    """Joins, then goes on as the agent of the configuration that this wrote: as a program whose arguments hold no token."""
    if not args.address:
        raise PermanentError("--address is missing: this machine's address on the nodes' network")
    node, uplink = args.node or own_name(), link_with(args.address)
    joining = Joining(args.server, node, args.address, args.state, uplink, tuple(args.other_server))
    config = joining.config
    if not config.exists():
        if not (args.token or args.token_file):
            raise PermanentError("--token-file is missing: it holds what `polder token create` printed")
        config = ensure_joined(joining, args.token or args.token_file.read_text())
    os.execv(sys.executable, [sys.executable, "-m", "polder.main", "agent", "--config", str(config)])  # noqa: S606


def command(args: argparse.Namespace) -> int:
    """Runs `polder agent`."""
    if args.server:
        _become_joined(args)
    config = load(args.config, AgentConfig)
    settle_pair(Path(config.certificate), Path(config.key))
    set_up(config.log_format)
    open_files()
    run(lambda: serve(config))
    return 0
