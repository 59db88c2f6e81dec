"""What a node's identity may do: act for the pods bound to it, and keep the datapath of the tenants present on it.

Writes are decided by what stands in the store, and, for what a request brings, once more by ``admit``, a
checking hook of admission.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from polder.api.core import Node, Pod, ServiceAccount
from polder.api.discovery import Lease
from polder.api.errors import Field, conflict, invalid
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.api.polder import Address, Port, Tenant, address_name
from polder.api.staticpods import mirror_problems
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.authn_method import NODE_ADDRESSES
from polder.apiserver.share import GIVEN, OF_PRESENT_TENANTS, Share
from polder.apiserver.types import Identity, RequestInfo, Role
from polder.base.ids import EVERY_TENANT, ROOT
from polder.sdn.topology.addressing import mac_of_port
from polder.store.protocol import Key, Prefix, Store

LEASE_NAMESPACE = "kube-node-lease"
MENTIONED = frozenset({"configmaps", "secrets", "serviceaccounts", "persistentvolumeclaims"})
VOLUMES, CLAIMS = "persistentvolumes", "persistentvolumeclaims"
CLASSES = "runtimeclasses.node.k8s.io"
READ = frozenset({"get", "list", "watch"})
CHANGE = frozenset({"update", "patch"})
PORTS, ADDRESSES, NODES = (kind_of(t).resource for t in (Port, Address, Node))
HOSTNAME = "kubernetes.io/hostname"
DATAPATH = frozenset({PORTS, ADDRESSES})
LISTED = frozenset(
    {
        *(kind_of(t).resource for t in (Pod, Node, Tenant)),
        *OF_PRESENT_TENANTS,
        GIVEN,
    }
)
"""What a node lists and watches; the view is filtered to its share."""


@dataclass(frozen=True, slots=True)
class NodeRules:
    """The rules, on the share and on what stands in the store."""

    store: Store
    share: Share

    async def enters(self, who: Identity, tenant: str) -> bool:
        """Whether the tenant is one that the node knows of."""
        return tenant in {ROOT, EVERY_TENANT} or await self.share.enters(who.node, tenant)

    async def may(self, who: Identity, what: RequestInfo) -> bool:
        """Whether the node may, in a tenant that it enters."""
        resource = f"{what.resource}.{what.group}" if what.group else what.resource
        if what.tenant == EVERY_TENANT:
            return self._view(what, resource)
        if what.verb in READ:
            return await self._read(who, what, resource)
        return await self._write(who, what, resource)

    def _view(self, what: RequestInfo, resource: str) -> bool:
        """Lists and watches over all tenants."""
        return resource in LISTED and what.verb in {"list", "watch"} and not what.subresource

    async def _read(self, who: Identity, what: RequestInfo, resource: str) -> bool:
        """Single objects, and lists of one tenant, which no filter covers and are therefore of public kinds only."""
        if resource in MENTIONED or resource == VOLUMES:
            return what.verb == "get" and await self._uses(who, what, resource)
        if what.subresource and what.subresource != "status":
            return False
        if resource == "leases.coordination.k8s.io":
            return what.verb == "get" and self._own_lease(who, what)
        if resource == "nodes":
            return what.tenant == ROOT and what.verb == "get"
        if resource == CLASSES:  # root's are listed: they name the handlers that tenants' classes may name
            root = what.tenant == ROOT and what.verb in {"get", "list"}
            return root or (what.verb == "get" and await self.share.enters(who.node, what.tenant))
        if what.verb == "list" and resource in OF_PRESENT_TENANTS:  # all of these are in the share
            return what.tenant != ROOT and await self.share.enters(who.node, what.tenant)
        if resource not in LISTED or what.verb != "get":
            return False
        if resource == kind_of(Tenant).resource:  # before it is looked for: whether there is another is not told
            return await self.share.enters(who.node, what.name)
        if resource == GIVEN:  # the view is all that a node needs of them
            return False
        entry = await self.store.get(Key(resource, what.tenant, what.namespace, what.name))
        if entry is None:
            return what.tenant == ROOT or await self.share.enters(who.node, what.tenant)
        spec = orjson.loads(entry.value).get("spec") or {}
        if resource == "pods":
            return bool(spec.get("nodeName") == who.node)
        if what.tenant == ROOT and resource == kind_of(Port).resource:
            return bool(spec.get("node") == who.node) or await self.share.enters(who.node, spec.get("routerOf") or ROOT)
        return what.tenant == ROOT or await self.share.enters(who.node, what.tenant)

    async def _write(self, who: Identity, what: RequestInfo, resource: str) -> bool:
        if resource == "nodes":
            own = what.name == who.node and what.verb in CHANGE and what.subresource in {"", "status"}
            return what.tenant == ROOT and (own or (what.verb == "create" and not what.subresource))
        if resource == "leases.coordination.k8s.io":
            create = what.verb == "create" and what.namespace == LEASE_NAMESPACE and what.tenant == ROOT
            return create or (what.verb in CHANGE and self._own_lease(who, what))
        if resource == "events":
            return what.verb in {"create", *CHANGE} and not what.subresource
        if resource == "serviceaccounts":
            key = Key(resource, what.tenant, what.namespace, what.name)
            return (what.verb, what.subresource) == ("create", "token") and await self.share.references(who.node, key)
        if resource == "pods" and what.verb == "create":  # mirrors of its static pods, see admit
            return what.tenant == ROOT and not what.subresource
        if resource == "pods":
            allowed = (what.verb in CHANGE and what.subresource == "status") or (
                what.verb == "delete" and not what.subresource
            )
            return allowed and await self._owns(who, what, resource, "nodeName")
        if resource in DATAPATH:
            if what.verb == "create":
                return not what.subresource
            return what.verb in {"delete", *CHANGE} and await self._owns(who, what, resource, "node")
        return False

    async def _uses(self, who: Identity, what: RequestInfo, resource: str) -> bool:
        """Whether a pod bound to the node mentions an object, or the claim that a volume is bound to."""
        if resource != VOLUMES:
            return await self.share.references(who.node, Key(resource, what.tenant, what.namespace, what.name))
        entry = await self.store.get(Key(VOLUMES, what.tenant, "", what.name)) if not what.subresource else None
        claim = (orjson.loads(entry.value).get("spec") or {}).get("claimRef") if entry is not None else None
        if not claim:
            return False
        key = Key(CLAIMS, what.tenant, claim.get("namespace", ""), claim.get("name", ""))
        return await self.share.references(who.node, key)

    def _own_lease(self, who: Identity, what: RequestInfo) -> bool:
        return what.tenant == ROOT and what.namespace == LEASE_NAMESPACE and what.name == who.node

    async def _owns(self, who: Identity, what: RequestInfo, resource: str, field: str) -> bool:
        """Whether the object stands and is the node's; one that is gone may be asked for, and is then not found."""
        entry = await self.store.get(Key(resource, what.tenant, what.namespace, what.name))
        return entry is None or (orjson.loads(entry.value).get("spec") or {}).get(field) == who.node

    async def admit(self, context: AdmissionContext) -> None:
        """Admission of what a node brings, nothing for others. Raises ApiError 422.

        Its own Node, under an address of its own, and Lease; mirrors of its static pods; Ports of pods bound to it and of
        routers of tenants present on it, with addresses that these Ports claimed; Addresses of its Ports.
        """
        who, kind, obj = context.who, context.resource.kind, context.obj
        if who.role is not Role.NODE or obj is None:
            return
        spec, at = obj.get("spec") or {}, Field("spec")
        name = obj.get("metadata", {}).get("name", "")
        if kind.resource in {NODES, kind_of(Lease).resource} and name != who.node:
            message = f"a node writes only its own, {who.node}"
            raise invalid(kind, name, [(Field("metadata") / "name").invalid(name, message)])
        if kind.resource == NODES:
            await self._check_node(context, obj)
        if context.concerns(kind_of(Pod).resource, "create"):
            await self._check_mirror(context, obj)
        if kind.resource not in DATAPATH:
            return
        if spec.get("node") != who.node:
            raise invalid(kind, name, [(at / "node").invalid(spec.get("node"), f"must be {who.node}")])
        before = None if context.old is None else context.old.get("spec") or {}
        if kind.resource == PORTS and _changes(spec, before, "routerOf", "pod", "podUid"):
            await self._check_port(context, spec)
        if kind.resource == PORTS and _changes(spec, before or {}, "labels", "containerPorts"):
            await self._check_facts(context, spec)
        if kind.resource == PORTS and _changes(spec, before, "network", "addresses", "mac"):
            await self._check_claims(context, spec)
        elif kind.resource != PORTS and _changes(spec, before, "port"):
            await self._check_address(context, spec)

    async def _check_mirror(self, context: AdmissionContext, obj: Raw) -> None:
        """Raises ApiError 422."""
        found = await self._spec_of(NODES, ROOT, "", context.who.node)
        if problems := list(mirror_problems(obj, context.who.node, found[0] if found is not None else "")):
            raise invalid(context.resource.kind, context.name, problems)

    async def _check_port(self, context: AdmissionContext, spec: Raw) -> None:
        """Whose Port it is: a router's in root, or a pod's. Raises ApiError 422."""
        node, at, router = context.who.node, Field("spec"), spec.get("routerOf")
        if router:
            if context.tenant != ROOT or not await self.share.enters(node, router):
                problem = (at / "routerOf").invalid(router, f"is no tenant present on {node}")
                raise invalid(context.resource.kind, context.name, [problem])
            return
        pod = await self._spec_of("pods", context.tenant, context.namespace, spec.get("pod", ""))
        if pod is None or pod[0] != spec.get("podUid") or pod[1].get("nodeName") != node:
            problem = (at / "podUid").invalid(spec.get("podUid"), f"is the UID of no pod of that name bound to {node}")
            raise invalid(context.resource.kind, context.name, [problem])

    async def _check_facts(self, context: AdmissionContext, spec: Raw) -> None:
        """By its labels and named ports others' policies let a pod in, so they are the pod's. Raises ApiError 409: the pod may be
        another by now.
        """
        entry = await self.store.get(Key("pods", context.tenant, context.namespace, str(spec.get("pod", ""))))
        pod = orjson.loads(entry.value) if entry is not None else {"metadata": {}, "spec": {}}
        labels = pod["metadata"].get("labels") or {}
        if (spec.get("labels") or {}, spec.get("containerPorts") or []) != (labels, _named_ports(pod["spec"])):
            why = "spec.labels and spec.containerPorts must be the labels and the named ports of the Port's pod"
            raise conflict(context.resource.kind, context.name, why)

    async def _check_claims(self, context: AdmissionContext, spec: Raw) -> None:
        """Whoever has an address gets its traffic, so a Port has those that it claimed. Raises ApiError 422."""
        at, addresses, mac = Field("spec"), spec.get("addresses") or [], spec.get("mac") or ""
        for number, address in enumerate(addresses):
            if not await self._claimed(context, spec, address):
                why = "is no Address that this Port claimed"
                raise invalid(context.resource.kind, context.name, [(at / "addresses")[number].invalid(address, why)])
        own = mac_of_port(addresses) if addresses else ""
        if mac and mac != own and not await self._claimed(context, spec, mac.replace(":", "-")):
            problem = (at / "mac").invalid(mac, "neither follows from the Port's address nor is claimed by it")
            raise invalid(context.resource.kind, context.name, [problem])

    async def _claimed(self, context: AdmissionContext, spec: Raw, what: str) -> bool:
        namespace, _, network = str(spec.get("network", "")).partition("/")
        claim = await self._spec_of(ADDRESSES, context.tenant, namespace, address_name(network, what))
        return claim is not None and claim[1].get("port") == f"{context.namespace}/{context.name}"

    async def _check_node(self, context: AdmissionContext, obj: Raw) -> None:
        """What others trust: the label that selectors name it by, and its underlay address. Raises ApiError 422."""
        node, at = context.who.node, Field("metadata") / "labels"
        label = (obj["metadata"].get("labels") or {}).get(HOSTNAME, node)
        if label != node:
            raise invalid(context.resource.kind, node, [at[HOSTNAME].invalid(label, f"must be {node}")])
        wanted = _internal(obj)
        certified = set(context.who.extra.get(NODE_ADDRESSES, ()))
        for address in wanted - certified if certified else ():
            problem = (Field("status") / "addresses").invalid(address, f"is not in the certificate of {node}")
            raise invalid(context.resource.kind, node, [problem])
        if context.old is not None and wanted <= _internal(context.old):
            return
        page = await self.store.list(Prefix(NODES, ROOT))
        others = (orjson.loads(entry.value) for entry in page.entries if entry.key.name != node)
        for other in others:
            for address in wanted & _internal(other):
                problem = (Field("status") / "addresses").invalid(address, "is another node's address")
                raise invalid(context.resource.kind, node, [problem])

    async def _check_address(self, context: AdmissionContext, spec: Raw) -> None:
        """An Address is for a Port of the node. Raises ApiError 422."""
        namespace, _, name = str(spec.get("port", "")).partition("/")
        port = await self._spec_of(PORTS, context.tenant, namespace, name)
        if port is None or port[1].get("node") != context.who.node:
            problem = (Field("spec") / "port").invalid(spec.get("port"), f"names no Port of {context.who.node}")
            raise invalid(context.resource.kind, context.name, [problem])

    async def _spec_of(self, resource: str, tenant: str, namespace: str, name: str) -> tuple[str, Raw] | None:
        """UID and spec of what stands, None if nothing does."""
        entry = await self.store.get(Key(resource, tenant, namespace, name))
        if entry is None:
            return None
        raw = orjson.loads(entry.value)
        return raw["metadata"]["uid"], raw.get("spec") or {}

    async def check_token(self, who: Identity, what: RequestInfo, spec: Raw) -> None:
        """A node asks only for tokens of its pods (nothing for others). Raises ApiError 422."""
        if who.role is not Role.NODE:
            return
        reference = spec.get("boundObjectRef") or {}
        pod = await self._spec_of("pods", what.tenant, what.namespace, str(reference.get("name", "")))
        if (
            pod is None
            or reference.get("kind") != "Pod"
            or pod[0] != reference.get("uid")
            or pod[1].get("nodeName") != who.node
            or (pod[1].get("serviceAccountName") or "default") != what.name
        ):
            why = f"a node asks only for tokens bound, by name and UID, to a pod on {who.node} that runs as the account"
            raise invalid(
                kind_of(ServiceAccount), what.name, [(Field("spec") / "boundObjectRef").invalid(reference, why)]
            )


def _internal(node: Raw) -> set[str]:
    """The addresses by which other nodes reach it."""
    addresses = (node.get("status") or {}).get("addresses") or []
    return {str(a.get("address")) for a in addresses if a.get("type") == "InternalIP"}


def _named_ports(spec: Raw) -> list[Raw]:
    """The ports with names of a pod's containers that run along."""
    containers = [*spec.get("containers", ()), *(spec.get("initContainers") or ())]
    return [
        {"name": port["name"], "containerPort": port["containerPort"], "protocol": port.get("protocol") or "TCP"}
        for number, one in enumerate(containers)
        if number < len(spec.get("containers", ())) or one.get("restartPolicy") == "Always"
        for port in one.get("ports") or ()
        if port.get("name")
    ]


def _changes(spec: Raw, before: Raw | None, *fields: str) -> bool:
    """Whether it is new, or one of the fields is."""
    return before is None or any(spec.get(f) != before.get(f) for f in fields)
