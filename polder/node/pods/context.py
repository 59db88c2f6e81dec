"""What every pod's worker is given."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from polder.api.core import Pod
from polder.base.clock import Clock
from polder.node.images import Images
from polder.node.pods.configs import Places
from polder.node.pods.features import NOTHING, Features
from polder.node.pods.fields import Surroundings
from polder.node.pods.hostports import HostPorts
from polder.node.pods.ports import Cluster, Prepare, Recorder, Services, no_services
from polder.node.pods.resolv import Resolver
from polder.node.pods.room import Room
from polder.node.probes.attempt import Means
from polder.node.volumes.manager import Volumes
from polder.system.cgroups import Cgroups
from polder.system.cri import CriClient


@dataclass(frozen=True, slots=True)
class Machine:
    """The node as pods see it: address, CPU in thousandths, memory and disk in bytes. ``left``: what of them pods may have."""

    host_ip: str
    cpu: int
    memory: int
    disk: int = 0
    left: Mapping[str, int] = field(default_factory=dict)

    def around(self, pod: Pod, addresses: tuple[str, ...] = ()) -> Surroundings:
        """A pod's surroundings, with the addresses in its status unless newer ones are known."""
        own = (self.host_ip,) if pod.spec.host_network else ()
        known = addresses or tuple(ip.ip for ip in pod.status.pod_ips or []) or own
        sizes = {"cpu": self.cpu, "memory": self.memory, "ephemeral-storage": self.disk, **self.left}
        return Surroundings(self.host_ip, known, sizes["cpu"], sizes["memory"], sizes["ephemeral-storage"])


@dataclass(frozen=True, slots=True)
class Context:
    """The parts. ``starts`` bounds how many sandboxes are made at once on the node; ``since`` is when the agent started, in
    seconds since the epoch.
    """

    cri: CriClient
    cluster: Cluster
    recorder: Recorder
    volumes: Volumes
    images: Images
    prepare: Prepare
    places: Places
    resolver: Resolver
    machine: Machine
    clock: Clock
    cgroups: Cgroups
    starts: asyncio.Semaphore
    means: Means
    since: float
    features: Features = NOTHING
    services: Services = no_services
    room: Room = field(default_factory=lambda: Room({}))
    host_ports: HostPorts = field(default_factory=HostPorts)
