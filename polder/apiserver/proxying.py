"""``pods/proxy`` and ``services/proxy``: HTTP to what runs, from the tenant's own router (``dial.py``).

A service is one of its endpoints that is a pod of the tenant. Headers that say who asks, and credentials, are not passed on.
Links of pages and redirects lead back through the proxy (``proxy_html.py``). Upgrades are carried as they are. Source: upstream's
UpgradeAwareHandler and the ResourceLocation functions of pods and services.
"""

from __future__ import annotations

import ipaddress
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

from polder.api.errors import ApiError, bad_request, not_found, unavailable
from polder.api.kinds import built_in
from polder.api.meta import Raw
from polder.apiserver.dial import DialError, Target
from polder.apiserver.hooks import Call
from polder.apiserver.objects import service_term
from polder.apiserver.outcalls import ENDPOINT_SLICES, ENOUGH, SLICES, Outcalls
from polder.apiserver.outconn import Peer
from polder.apiserver.podplace import read_pod
from polder.apiserver.proxy_pass import Onward, pass_on
from polder.apiserver.types import RequestInfo
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import Key, Store

AT_ONCE: Final = 64
"""Requests of one tenant that are passed on at a time."""
SERVICE: Final = built_in("v1", "services")


@dataclass(frozen=True, slots=True)
class Asked:
    """A name as proxies have it: ``NAME``, ``NAME:PORT`` or ``SCHEME:NAME:PORT``."""

    scheme: str
    name: str
    port: str


def parse_name(text: str, what: str) -> Asked:
    """Raises ApiError 400."""
    parts = text.split(":")
    if len(parts) == 1 and parts[0]:
        return Asked("", parts[0], "")
    if len(parts) == 2 and parts[0]:
        return Asked("", parts[0], parts[1])
    if len(parts) == 3 and parts[0] in {"", "http", "https"} and parts[1]:
        return Asked(*parts)
    raise bad_request(f'invalid {what} request "{text}"')


def pod_target(pod: Raw, asked: Asked, tenant: TenantName) -> Target:
    """Where a pod listens. Raises ApiError 400, 503."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    port = asked.port or next(
        (str(p["containerPort"]) for p in _ports(spec)), "443" if asked.scheme == "https" else "80"
    )
    address = str(status.get("podIP") or "")
    if not proxyable(address):
        raise bad_request("address not allowed")
    if not port.isdecimal() or not 0 < int(port[:6]) < 65536:
        raise unavailable(f"error trying to reach service: dial tcp: lookup tcp/{port[:63]}: unknown port")
    node = "" if spec.get("hostNetwork") and tenant == ROOT else str(spec.get("nodeName") or "")
    return Target(tenant, address, int(port), node)


def _ports(spec: Raw) -> list[Raw]:
    return [port for container in spec.get("containers") or () for port in container.get("ports") or ()]


def proxyable(address: str) -> bool:
    """Whether an address is one of a host out there."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified)


class Proxies:
    """The handlers of the ``proxy`` subresources."""

    def __init__(self, store: Store, outcalls: Outcalls) -> None:
        self._store = store
        self._outcalls = outcalls
        self._open: Counter[TenantName] = Counter()

    async def pod(self, call: Call) -> web.StreamResponse:
        """Raises ApiError 400, 404, 429, 503."""
        asked = parse_name(call.info.name, "pod")
        pod = await read_pod(self._store, call.info, asked.name)
        return await self._pass(call, asked, pod_target(pod, asked, call.info.tenant))

    async def service(self, call: Call) -> web.StreamResponse:
        """Raises ApiError 400, 404, 429, 503."""
        asked = parse_name(call.info.name, "service")
        found = await self._endpoints(call.info, asked)
        return await self._pass(call, asked, random.choice(found))  # noqa: S311 - spreads load, hides nothing

    async def _pass(self, call: Call, asked: Asked, target: Target) -> web.StreamResponse:
        tenant = call.info.tenant
        if self._open[tenant] >= AT_ONCE:
            message = "too many requests: too many are being proxied for this tenant; try again later"
            raise ApiError(429, "TooManyRequests", message, {"retryAfterSeconds": 1})
        host = f"[{target.address}]" if ":" in target.address else target.address
        peer = Peer(target, target.address, plain=asked.scheme != "https", insecure=True, port=target.port)
        self._open[tenant] += 1
        try:
            return await pass_on(call, Onward(self._outcalls, peer, f"{host}:{target.port}"))
        except DialError as error:
            raise unavailable(f"error trying to reach service: {error}") from error
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    async def _endpoints(self, info: RequestInfo, asked: Asked) -> Sequence[Target]:
        """Ready endpoints of a service that are pods. Raises ApiError 404, 503."""
        entry = await self._store.get(Key(SERVICE.resource, info.tenant, info.namespace, asked.name))
        if entry is None:
            raise not_found(SERVICE, asked.name)
        ports = (orjson.loads(entry.value).get("spec") or {}).get("ports") or []
        name = asked.port
        if name.isdecimal():
            wanted = next((p for p in ports if p.get("port") == int(name[:6])), None)
            if wanted is None:
                raise unavailable(f'no service port {name} found for service "{asked.name}"')
            name = str(wanted.get("name") or "")
        found: list[Target] = []
        keys = await self._store.by_term(service_term(info.namespace, asked.name), info.tenant)
        mine = [key for key in keys if key.resource == ENDPOINT_SLICES]
        for number, key in enumerate(random.sample(mine, min(len(mine), SLICES))):
            if found and number >= ENOUGH:
                break
            row = await self._store.get(key)
            if row is not None:
                found += await self._pods_of(orjson.loads(row.value), info, name)
        if not found:
            raise unavailable(f'no endpoints available for service "{info.name}"')
        return found

    async def _pods_of(self, slice_: Raw, info: RequestInfo, port: str) -> list[Target]:
        """The first ready endpoint of a slice, from any of them on, whose address is its pod's: a slice is written by anybody."""
        number = next((p.get("port") for p in slice_.get("ports") or [] if (p.get("name") or "") == port), None)
        ready = [e for e in slice_.get("endpoints") or [] if (e.get("conditions") or {}).get("ready") is not False]
        if number is None or not ready:
            return []
        for endpoint in random.sample(ready, min(len(ready), SLICES)):
            target = await self._checked(endpoint, info, int(number))
            if target is not None:
                return [target]
        return []

    async def _checked(self, endpoint: Raw, info: RequestInfo, port: int) -> Target | None:
        reference = endpoint.get("targetRef") or {}
        if reference.get("kind") != "Pod" or reference.get("namespace", info.namespace) != info.namespace:
            return None
        try:
            pod = await read_pod(self._store, info, str(reference.get("name", "")))
        except ApiError:
            return None
        addresses = {str(ip.get("ip")) for ip in (pod.get("status") or {}).get("podIPs") or []}
        for address in endpoint.get("addresses") or []:
            if address in addresses and proxyable(str(address)):
                spec = pod.get("spec") or {}
                node = "" if spec.get("hostNetwork") and info.tenant == ROOT else str(spec.get("nodeName") or "")
                return Target(info.tenant, str(address), port, node)
        return None
