"""Attachments: what a sandbox's ADD and DEL mean. They note who uses the Port, and wait for the pipeline.

Who uses a Port is on disk before ADD and DEL answer, and in the datapath. The API has the addresses' claims from before; it is
told of the sandbox right afterwards by ``reconcile``, which also lets a Port go once its link no longer exists. So ADD and DEL
of what is prepared need no server, and an agent that starts anew finds on its own disk what it had answered.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from polder.api.core import Pod
from polder.api.errors import ApiError
from polder.api.meta import ref_of
from polder.api.polder import DEFAULT_ROUTER, PORT_FINALIZER, SYSTEM_NAMESPACE, Port, PortStatus
from polder.base.clock import Clock, SystemClock
from polder.base.errors import PermanentError, RetryableError
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.loop.runner import Runner
from polder.node.ipam import Ipam, network_of
from polder.node.journal import Journal, Use
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.compile.snapshot import same_use
from polder.sdn.pipeline import Pipeline
from polder.sdn.render.linux.network import mtu_of
from polder.sdn.render.linux.port import alone
from polder.sdn.topology import types as topology
from polder.sdn.topology.addressing import link_name

log = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds that a call waits for the kernel to have a port."""
YOUNG = 300.0
"""Seconds for which our own collection leaves an attachment alone: the runtime may not list its sandbox yet."""
SOON = 0.02
"""Seconds after which the API is told of an ADD: the runtime's next step comes first."""
DEFAULT_INTERFACE = "eth0"
ATTACHED, DETACHED = "Attached", "Detached"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One interface of one sandbox, as the runtime names it, and whose it is."""

    container: str
    interface: str
    netns: str = ""
    pod_uid: str = ""
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Attached:
    """What a sandbox has: link here, interface there, addresses (alone: everything goes by way of the gateway)."""

    link: str
    interface: str
    netns: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PortCache:
    """Where Ports and Pods are looked up by UID: caches of the node's share."""

    port: Callable[[Ref], Port | None]
    ports_of_pod: Callable[[str], list[Port]]
    pod_of_uid: Callable[[str], Pod | None]


@dataclass(frozen=True, slots=True)
class AttachParts:
    """What attachments are made with. ``prepare`` makes a pod's Port, router and network ready and answers with the Port."""

    client: Client
    pipeline: Pipeline
    ipam: Ipam
    journal: Journal
    cache: PortCache
    prepare: Callable[[Pod], Awaitable[Port]]
    clock: Clock = field(default_factory=SystemClock)


class Attachments:
    """Raises PermanentError for what cannot work, RetryableError for what may work later, ApiError for what is refused."""

    def __init__(self, parts: AttachParts) -> None:
        self._parts = parts
        self._locks: WeakValueDictionary[Ref, asyncio.Lock] = WeakValueDictionary()
        self._written: dict[Ref, Port] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._started = parts.clock.monotonic()
        self._runner: Runner[Ref] = Runner("ports", self.reconcile, workers=8, clock=parts.clock)
        for use in parts.journal.uses():
            parts.pipeline.expect(use.port, _status(use))
            self._runner.add(use.port)

    async def run(self) -> None:
        """Until cancelled: tell the API who uses which Port, and let Ports go."""
        await self._runner.run()

    def changed(self, ref: Ref, _: Port | None, new: Port | None) -> None:
        """A handler for the informer of Ports."""
        if new is None:
            self._written.pop(ref, None)
        elif new.spec.node != self._parts.pipeline.facts.name:
            return
        if new is None or new.metadata.deletion_timestamp is not None or self._parts.journal.of(ref) is not None:
            self._runner.add(ref)

    async def add(self, sandbox: Sandbox) -> Attached:
        """Attach. The same sandbox twice gives the same; another sandbox of the pod takes the port over."""
        self.status()
        port = await self._port(sandbox)
        ref = ref_of(port)
        async with self._lock(ref):
            self._since[sandbox.container, sandbox.interface] = self._parts.clock.monotonic()
            port = self._newest(ref, port) or port
            if port.metadata.deletion_timestamp is not None:
                raise RetryableError(f"Port {ref} is being deleted", 0.5)
            use = self._use(port)
            if (use.sandbox, use.netns) != (sandbox.container, sandbox.netns):
                use = Use(ref, sandbox.container, sandbox.netns, self._link(port, sandbox))
            self._parts.pipeline.put(Port, ref, port)
            await self._apply(use, present=True)
            self._runner.add_after(ref, SOON)
            return self._attached(port, use)

    async def delete(self, sandbox: Sandbox) -> None:
        """Detach: no packet passes when this returns. What is not attached is detached already."""
        self._since.pop((sandbox.container, sandbox.interface), None)
        ref = self._ref_of(sandbox)
        if ref is None:
            return
        async with self._lock(ref):
            await self._detach(ref, sandbox.container)
        self._runner.add(ref)

    async def check(self, sandbox: Sandbox) -> None:
        """Raises PermanentError where the attachment is not as ADD left it."""
        part = self._parts.pipeline.sandbox_of(sandbox.container, sandbox.interface)
        if part is None:
            raise PermanentError(f"sandbox {sandbox.container} has no interface {sandbox.interface} of Polder")
        if sandbox.netns and sandbox.netns != part.netns:
            raise PermanentError(f"sandbox {sandbox.container}: CNI_NETNS is {sandbox.netns}, ADD had {part.netns}")
        missing = await self._parts.pipeline.missing(Key(Concern.PORT, _ref(part)))
        if missing:
            raise PermanentError(f"Port {_ref(part)}: the kernel lacks {'; '.join(missing)}")

    def knows(self, pod_uid: str) -> bool:
        """Whether a sandbox of the pod could be attached: the pod, or its Port, has been seen."""
        return bool(self._parts.cache.ports_of_pod(pod_uid)) or self._parts.cache.pod_of_uid(pod_uid) is not None

    def addresses(self, sandbox: Sandbox) -> tuple[str, ...]:
        """What a sandbox has, with prefix length; nothing where it is not attached."""
        part = self._parts.pipeline.sandbox_of(sandbox.container, sandbox.interface)
        return tuple(alone(address) for address in part.addresses) if part is not None else ()

    async def collect(self, valid: Iterable[tuple[str, str]], *, young: float = 0.0) -> list[str]:
        """Detach every (container, interface) that is not ``valid``, unless it came less than ``young`` seconds ago."""
        keep, now = set(valid), self._parts.clock.monotonic()
        ended = []
        for part in self._parts.pipeline.attached():
            key = part.sandbox, part.interface
            if key in keep or now - self._since.get(key, self._started) < young:
                continue
            log.info("sandbox %s of Port %s is gone; it is detached", part.sandbox, _ref(part))
            await self.delete(Sandbox(part.sandbox, part.interface))
            ended.append(part.sandbox)
        return ended

    def status(self) -> None:
        """Raises RetryableError while ADD could not work."""
        if not self._parts.pipeline.synced:
            raise RetryableError("the node's agent has not seen the API since it started", 1.0)

    async def reconcile(self, ref: Ref) -> float | None:
        """Tell the API who uses the Port, and let a Port of this node go that is in deletion."""
        async with self._lock(ref):
            try:
                port = await self._parts.client.get(Port, ref)
            except ApiError as error:
                if not (error.is_not_found or (error.is_forbidden and self._left(ref))):
                    raise
                self._forget(ref)
                return None
            if port.spec.node == self._parts.pipeline.facts.name:
                await self._settle_accounts(ref, port)
        return None

    def _left(self, ref: Ref) -> bool:
        """Whether the Port has left this node's share, with its tenant."""
        return self._parts.pipeline.synced and self._parts.cache.port(ref) is None

    async def _settle_accounts(self, ref: Ref, port: Port) -> None:
        deleting = port.metadata.deletion_timestamp is not None
        use = self._parts.journal.of(ref)
        if use is not None and not deleting:
            if not same_use(port.status, _status(use)):
                port = await self._write(port, use)
            self._parts.pipeline.put(Port, ref, port)
            self._parts.journal.forget(ref)
        if deleting and PORT_FINALIZER in (port.metadata.finalizers or []):
            await self._release(ref, port)

    async def _release(self, ref: Ref, port: Port) -> None:
        """The datapath first: only then may others have the address."""
        pipeline = self._parts.pipeline
        pipeline.put(Port, ref, port)
        if not pipeline.synced:
            raise RetryableError(f"Port {ref}: it is let go once every object has been seen", 0.5)
        key = Key(Concern.PORT, ref)
        if port.spec.router_of:
            key = Key(Concern.ROUTER, router_ref(TenantName(port.spec.router_of)))
        await pipeline.settle([key], present=False, timeout=PATIENCE)
        await pipeline.wait_gone(key)
        await self._parts.ipam.release(port)
        pipeline.put(Port, ref, None)
        self._forget(ref)

    def _forget(self, ref: Ref) -> None:
        self._parts.journal.forget(ref)
        self._parts.pipeline.expect(ref, None)
        self._written.pop(ref, None)

    async def _detach(self, ref: Ref, container: str) -> None:
        port = self._newest(ref)
        part = self._parts.pipeline.part(Key(Concern.PORT, ref))
        in_use = isinstance(part, topology.Port) and part.sandbox == container
        if in_use or (port is not None and self._use(port).sandbox == container):
            await self._apply(Use(ref), present=False)
        # else a late call: another sandbox has the port, or none has

    async def _apply(self, use: Use, *, present: bool) -> None:
        """Both at one time: the note on disk, and the datapath. Whoever had the port before is detached by that."""
        key = Key(Concern.PORT, use.port)
        self._parts.pipeline.expect(use.port, _status(use))
        wiring = asyncio.create_task(self._parts.pipeline.settle([key], present=present, timeout=PATIENCE))
        try:
            await asyncio.sleep(0)  # the pipeline hands its work to the kernel's thread before the disk's thread starts
            await asyncio.sleep(0)
            await self._parts.journal.write(use)
        except BaseException as error:
            wiring.cancel()
            await asyncio.gather(wiring, return_exceptions=True)
            if not isinstance(error, OSError):
                raise
            if present:
                self._parts.pipeline.expect(use.port, None)
            raise RetryableError(
                f"Port {use.port}: its use cannot be written to the node's disk: {error}", 1.0
            ) from error
        await wiring

    def _use(self, port: Port) -> Use:
        """Who uses a Port: by the journal, else by the API."""
        ref, status = ref_of(port), port.status
        return self._parts.journal.of(ref) or Use(ref, status.sandbox, status.netns, status.link)

    def _link(self, port: Port, sandbox: Sandbox) -> str:
        """A name that no link of this node has, nor one that is still on its way out."""
        taken = {part.link for part in self._parts.pipeline.attached()} | {port.status.link}
        attempts = (link_name(str(ref_of(port)), sandbox.container, attempt) for attempt in itertools.count())
        return next(name for name in attempts if name not in taken)

    async def _write(self, port: Port, use: Use) -> Port:
        patch = {
            "metadata": {"uid": port.metadata.uid, "resourceVersion": port.metadata.resource_version},
            "status": {
                "sandbox": use.sandbox or None,
                "netns": use.netns or None,
                "link": use.link or None,
                "phase": ATTACHED if use.sandbox else DETACHED,
            },
        }
        written = await self._parts.client.patch(Port, ref_of(port), patch, subresource="status")
        self._written[ref_of(port)] = written
        return written

    async def _port(self, sandbox: Sandbox) -> Port:
        """The Port of a sandbox, prepared; made now where the call comes before the agent saw the pod."""
        if not sandbox.pod_uid:
            raise PermanentError("CNI_ARGS has no K8S_POD_UID: the pod cannot be told from others of its name")
        if sandbox.interface != DEFAULT_INTERFACE:
            raise PermanentError(
                f"Pod {sandbox.pod}: interface {sandbox.interface}: only {DEFAULT_INTERFACE} is attached"
            )
        for port in self._parts.cache.ports_of_pod(sandbox.pod_uid):
            if port.spec.interface == sandbox.interface and port.spec.addresses:
                return port
        pod = self._parts.cache.pod_of_uid(sandbox.pod_uid)
        if pod is None:
            raise RetryableError(f"Pod {sandbox.pod} (uid {sandbox.pod_uid}) is not known on this node", 0.5)
        return await self._parts.prepare(pod)

    def _ref_of(self, sandbox: Sandbox) -> Ref | None:
        """The Port that a sandbox uses, by the datapath, else by what the API says."""
        part = self._parts.pipeline.sandbox_of(sandbox.container, sandbox.interface)
        if part is not None:
            return _ref(part)
        for port in [*self._written.values(), *self._parts.cache.ports_of_pod(sandbox.pod_uid)]:
            if self._use(port).sandbox == sandbox.container and port.spec.interface == sandbox.interface:
                return ref_of(port)
        return None

    def _newest(self, ref: Ref, known: Port | None = None) -> Port | None:
        """The Port as last written here, seen, or ``known``."""
        found = [port for port in (self._parts.cache.port(ref), self._written.get(ref), known) if port is not None]
        return max(found, key=lambda port: int(port.metadata.resource_version or 0), default=None)

    def _lock(self, ref: Ref) -> asyncio.Lock:
        lock = self._locks.get(ref)
        if lock is None:
            lock = self._locks[ref] = asyncio.Lock()
        return lock

    def _attached(self, port: Port, use: Use) -> Attached:
        pipeline = self._parts.pipeline
        network = pipeline.part(Key(Concern.NETWORK, network_of(port)))
        if not isinstance(network, topology.Network):
            raise RetryableError(f"Port {ref_of(port)}: its network {port.spec.network} went meanwhile", 0.5)
        return Attached(
            link=use.link,
            interface=port.spec.interface,
            netns=use.netns,
            mac=port.spec.mac,
            mtu=mtu_of(network, pipeline.facts),
            addresses=tuple(alone(address) for address in port.spec.addresses),
            gateways=network.gateways,
        )


def router_ref(tenant: TenantName) -> Ref:
    """A tenant's router."""
    return Ref(tenant, SYSTEM_NAMESPACE, DEFAULT_ROUTER)


def _status(use: Use) -> PortStatus:
    return PortStatus(sandbox=use.sandbox, netns=use.netns, link=use.link, phase=ATTACHED if use.sandbox else DETACHED)


def _ref(part: topology.Port) -> Ref:
    namespace, _, name = part.name.partition("/")
    return Ref(TenantName(part.tenant), namespace, name)
