"""What a tenant has from its first moment, and what the platform has from the server's first start.

A tenant's objects are committed together with the Tenant itself, so it is whole or not there.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polder.api.core import ConfigMap, Namespace, Service, ServiceAccount
from polder.api.discovery import EndpointSlice
from polder.api.endpoints import Endpoints
from polder.api.kinds import kind_of
from polder.api.meta import Object, Raw
from polder.api.polder import DEFAULT_NETWORK, DEFAULT_ROUTER, SYSTEM_NAMESPACE, Network, Router
from polder.api.storagefacts import StorageClassFacts
from polder.apiserver.objects import encode
from polder.apiserver.projection import leftovers
from polder.apiserver.proxytrust import CONFIG_MAP as PROXY_CONFIG_MAP
from polder.apiserver.service_claims import claim
from polder.apiserver.service_ranges import address_key
from polder.apiserver.signing_keys import signing_key_key, signing_key_put
from polder.apiserver.tenancy import TenantRecord, Tenants, record_of, tenant_key
from polder.apiserver.turns import left_turns
from polder.base.clock import Clock, stamp
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import ConflictError, Delete, Key, Op, Put, Store

TENANT_NAMESPACES = ("default", SYSTEM_NAMESPACE, "kube-public")
ROOT_NAMESPACES = ("default", SYSTEM_NAMESPACE, "kube-node-lease", "kube-public")
ROOT_CA_MAP = "kube-root-ca.crt"
LOCAL_CLASS = "local"
"""The class of storage that a new platform has: directories of the node that a claim's first pod is placed on."""
_LOCAL: Raw = {
    "provisioner": "local.polder.dev",
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "WaitForFirstConsumer",
}
SERVICE = "kubernetes"
SERVICE_PORT = 443
DNS_SERVICE = "kube-dns"
"""The resolver's, with the labels by which kubeadm's is known."""
DNS_PORT = 53
DNS_HOST = 10
TOGETHER = 20
"""Rows that are removed in one commit besides the Tenant's own."""
TRANSIT_NETWORK = "transit"
TRANSIT_CIDR = "100.64.0.0/10"
"""RFC 6598: no tenant's pods have these addresses for their own."""


def service_address(cidr: str) -> str:
    """The first address of a service range: the ``kubernetes`` service's."""
    return str(ipaddress.ip_network(cidr)[1])


def dns_address(cidr: str) -> str:
    """The tenth address of a service range: the resolver's; empty where there are not so many."""
    hosts = ipaddress.ip_network(cidr)
    return str(hosts[DNS_HOST]) if hosts.num_addresses > DNS_HOST + 1 else ""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Makes the first objects. ``ca`` says by which PEM clients trust the API; ``store`` is without projections."""

    clock: Clock
    ca: Callable[[], str]
    store: Store | None = None
    proxies: Callable[[TenantName], dict[str, str]] | None = None

    def tenant(self, value: bytes) -> list[Op]:
        """What to commit beside a new Tenant, whose stored value is given."""
        record = record_of(value)
        return [signing_key_put(record), *self._common(record, TENANT_NAMESPACES)]

    async def farewell(self, tenant: TenantName) -> list[Op]:
        """What to commit beside the removal of a Tenant's row: its key goes, and what it had instead of rows."""
        ends: list[Op] = [Delete(signing_key_key(tenant))]
        if self.store is not None:
            await self._thin_out(self.store, tenant)
            ends += [*await leftovers(self.store, tenant), *await left_turns(self.store, tenant)]
        return ends

    async def _thin_out(self, store: Store, tenant: TenantName) -> None:
        """Removes most of what an ending tenant has instead of rows beforehand: one commit cannot take any number."""
        entry = await store.get(tenant_key(tenant))
        if entry is None or record_of(entry.value).phase != "Terminating":
            return
        while len(left := await leftovers(store, tenant)) > TOGETHER:
            try:
                await store.commit(left[:TOGETHER])
            except ConflictError:
                continue  # another server does the same

    async def ensure_root(self, store: Store, tenants: Tenants) -> None:
        """Makes what is missing in ``root``; leaves the rest as it is. Idempotent. The class of storage is made with the store
        alone: the platform's administrator may have none.
        """
        wanted: list[Put] = [
            signing_key_put(tenants.root),
            *self._common(tenants.root, ROOT_NAMESPACES),
            self._put(ROOT, Network, SYSTEM_NAMESPACE, TRANSIT_NETWORK, {"spec": {"cidr": TRANSIT_CIDR, "router": ""}}),
        ]
        if await store.get(wanted[0].key) is None:
            wanted.append(self._put(ROOT, StorageClassFacts, "", LOCAL_CLASS, _LOCAL))
        while missing := [put for put in wanted if await store.get(put.key) is None]:
            try:
                await store.commit([Put(put.key, put.value, 0) for put in missing])
            except ConflictError:
                continue  # another server of this store is doing the same

    def namespace(self, tenant: TenantName, name: str) -> Sequence[Put]:
        """What every namespace has: its ``default`` account and the authority's certificate."""
        return (
            self._put(tenant, ServiceAccount, name, "default", {}),
            self._put(tenant, ConfigMap, name, ROOT_CA_MAP, {"data": {"ca.crt": self.ca()}}),
        )

    def proxy_trust(self, tenant: TenantName) -> Put:
        """By what the tenant's extension API servers believe our proxy."""
        data = self.proxies(tenant) if self.proxies is not None else {}
        return self._put(tenant, ConfigMap, SYSTEM_NAMESPACE, PROXY_CONFIG_MAP, {"data": data})

    def _common(self, record: TenantRecord, namespaces: Sequence[str]) -> list[Put]:
        tenant, puts = record.name, []
        for name in namespaces:
            body = {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
            puts.append(self._put(tenant, Namespace, "", name, body))
            puts += self.namespace(tenant, name)
        ranges = list(record.service_cidrs) or [record.service_cidr]
        router = {"spec": {"serviceCidr": ranges[0], "serviceCidrs": ranges}}
        puts.append(self._put(tenant, Router, SYSTEM_NAMESPACE, DEFAULT_ROUTER, router))
        cidrs = list(record.pod_cidrs) or [record.pod_cidr]
        network = {"spec": {"cidr": cidrs[0], "cidrs": cidrs, "router": DEFAULT_ROUTER}}
        puts.append(self._put(tenant, Network, SYSTEM_NAMESPACE, DEFAULT_NETWORK, network))
        return [*puts, self.proxy_trust(tenant), *self._services(record)]

    def _services(self, record: TenantRecord) -> list[Put]:
        """The API inside the tenant, and its resolver: the router's own namespace answers at these addresses, so that each
        service is its own endpoint. A range that is too small for the tenth host has no resolver.
        """
        api: Raw = {"name": "https", "port": SERVICE_PORT, "protocol": "TCP"}
        puts = self._service(record.name, ("default", SERVICE), service_address(record.service_cidr), [api])
        resolver = dns_address(record.service_cidr)
        if resolver:
            ports: list[Raw] = [
                {"name": n, "port": DNS_PORT, "protocol": p} for n, p in (("dns", "UDP"), ("dns-tcp", "TCP"))
            ]
            puts += self._service(record.name, (SYSTEM_NAMESPACE, DNS_SERVICE), resolver, ports)
        return puts

    def _service(self, tenant: TenantName, at: tuple[str, str], address: str, ports: list[Raw]) -> list[Put]:
        """A service at ``(namespace, name)`` with its claim, slice and Endpoints."""
        family = "IPv6" if ":" in address else "IPv4"
        spec: Raw = {
            "clusterIP": address,
            "clusterIPs": [address],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": [family],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{**port, "targetPort": port["port"]} for port in ports],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        }
        slice_: Raw = {
            "addressType": family,
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": ports,
        }
        subset: Raw = {"addresses": [{"ip": address}], "ports": ports}
        return [
            Put(address_key(tenant, address), encode(claim(address, *at, stamp(self.clock.now()))), 0),
            self._put(tenant, Service, *at, {"spec": spec, "status": {"loadBalancer": {}}}),
            self._put(tenant, EndpointSlice, *at, slice_),
            self._put(tenant, Endpoints, *at, {"subsets": [subset]}),
        ]

    def _put(self, tenant: TenantName, type_: type[Object], namespace: str, name: str, body: Raw) -> Put:
        kind = kind_of(type_)
        meta: Raw = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": stamp(self.clock.now())}
        if namespace:
            meta["namespace"] = namespace
        if type_ is StorageClassFacts:
            meta["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
        labels = _labels(type_, name)
        if labels:
            meta["labels"] = labels
        if "spec" in body and type_ is not Namespace:
            meta["generation"] = 1
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, **body}
        return Put(Key(kind.resource, tenant, namespace, name), encode(obj), 0)


def _labels(type_: type[Object], name: str) -> dict[str, str]:
    if type_ is Namespace:
        return {"kubernetes.io/metadata.name": name}
    if type_ is Service and name == DNS_SERVICE:
        return {"k8s-app": DNS_SERVICE, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    if type_ is Service:
        return {"component": "apiserver", "provider": "kubernetes"}
    if type_ is Endpoints:
        return {"endpointslice.kubernetes.io/skip-mirror": "true"}
    if type_ is EndpointSlice:
        return {"kubernetes.io/service-name": name}
    return {}
