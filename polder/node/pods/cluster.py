"""The API as pods need it, through the client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from polder.api.core import ConfigMap, Pod, PodStatus, Secret, Service
from polder.api.errors import ApiError
from polder.api.meta import Object, Raw, Struct, ref_of, tenant_of
from polder.api.storagefacts import Claim, Volume
from polder.base.clock import Clock
from polder.base.errors import PermanentError
from polder.base.ids import ROOT, NodeName, TenantName
from polder.base.ref import Ref
from polder.client import wire
from polder.client.client import Client
from polder.node.pods.status import OWN

SERVICE_SECONDS = 60.0
"""How long a tenant's ``kubernetes`` service is taken as unchanged."""
DEFAULT_HANDLER = "runc"
"""The runtime's own choice for pods without a RuntimeClass, for which any class may therefore ask."""
_CLASSES = "apis/node.k8s.io/v1/runtimeclasses"

T = TypeVar("T", bound=Object)


class BoundTo(Struct, frozen=True, kw_only=True):
    """authentication.k8s.io/v1 BoundObjectReference."""

    api_version: str
    kind: str
    name: str
    uid: str


class TokenSpec(Struct, frozen=True, kw_only=True):
    """authentication.k8s.io/v1 TokenRequestSpec."""

    audiences: list[str] = []
    expiration_seconds: int = 3600
    bound_object_ref: BoundTo


class TokenStatus(Struct, frozen=True, kw_only=True):
    """authentication.k8s.io/v1 TokenRequestStatus."""

    token: str = ""


class TokenRequest(Struct, frozen=True, kw_only=True):
    """authentication.k8s.io/v1 TokenRequest, as asked and as answered."""

    api_version: str
    kind: str
    spec: TokenSpec | None = None
    status: TokenStatus = TokenStatus()


@dataclass(slots=True)
class ApiCluster:
    """The port ``Cluster`` on the real API."""

    client: Client
    node: NodeName
    clock: Clock
    _services: dict[TenantName, tuple[float, Service | None]] = field(default_factory=dict)

    async def _get(self, kind: type[T], ref: Ref) -> T | None:
        try:
            return await self.client.get(kind, ref)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    async def config_map(self, ref: Ref) -> ConfigMap | None:
        """A ConfigMap; None if there is none."""
        return await self._get(ConfigMap, ref)

    async def secret(self, ref: Ref) -> Secret | None:
        """A Secret; None if there is none."""
        return await self._get(Secret, ref)

    async def claim(self, ref: Ref) -> Claim | None:
        """A PersistentVolumeClaim; None if there is none."""
        return await self._get(Claim, ref)

    async def volume(self, tenant: TenantName, name: str) -> Volume | None:
        """A PersistentVolume that a claim of a pod here is bound to; None if there is none."""
        return await self._get(Volume, Ref(tenant, "", name))

    async def kubernetes_service(self, tenant: TenantName) -> Service | None:
        """The tenant's ``default/kubernetes``; None if there is none."""
        now = self.clock.monotonic()
        held = self._services.get(tenant)
        if held is None or now - held[0] > SERVICE_SECONDS:
            held = (now, await self._get(Service, Ref(tenant, "default", "kubernetes")))
            self._services[tenant] = held
        return held[1]

    async def runtime_handler(self, tenant: TenantName, name: str) -> str | None:
        """The handler of a RuntimeClass; None if there is no such class. Handlers may differ in how well they keep tenants
        apart: raises PermanentError for a tenant's class whose handler no class of the platform's names.
        """
        try:
            body = await self.client.raw("GET", f"/tenants/{tenant}/{_CLASSES}/{name}")
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        handler = msgspec.json.decode(body, type=_RuntimeClass).handler
        if tenant != ROOT and handler != DEFAULT_HANDLER:
            listed = await self.client.raw("GET", f"/tenants/{ROOT}/{_CLASSES}")
            if handler not in {one.handler for one in msgspec.json.decode(listed, type=_RuntimeClasses).items}:
                why = "handler: is none that the platform's RuntimeClasses name"
                raise PermanentError(f'runtimeclass.node.k8s.io "{name}": {why}: "{handler}"')
        return handler

    async def token(self, pod: Pod, audience: str, seconds: int) -> str:
        """A token of the pod's service account, bound to the pod. Raises ApiError."""
        meta, account = pod.metadata, pod.spec.service_account_name or "default"
        request = TokenRequest(
            api_version="authentication.k8s.io/v1",
            kind="TokenRequest",
            spec=TokenSpec(
                audiences=[audience] if audience else [],
                expiration_seconds=seconds,
                bound_object_ref=BoundTo(api_version="v1", kind="Pod", name=meta.name, uid=meta.uid),
            ),
        )
        path = f"/tenants/{tenant_of(meta)}/api/v1/namespaces/{meta.namespace}/serviceaccounts/{account}/token"
        answer = await self.client.raw("POST", path, wire.encode(request))
        found = msgspec.json.decode(answer, type=TokenRequest).status.token
        if not found:
            raise PermanentError(f"the server answered no token for service account {meta.namespace}/{account}")
        return found

    async def pod_exists(self, ref: Ref, uid: str) -> bool:
        """Whether the server, asked directly, has this pod, of this UID, bound to this node."""
        try:
            found = await self._get(Pod, ref)
        except ApiError as error:
            if error.is_forbidden:
                return False  # a tenant that is not present on this node, or exists no more
            raise
        return found is not None and found.metadata.uid == uid and found.spec.node_name == self.node

    async def write_status(self, pod: Pod, status: PodStatus) -> None:
        """Writes the status of exactly this pod. Raises ApiError 409 where another has its name."""
        patch = status_patch(pod, status)
        await self.client.patch(Pod, ref_of(pod), patch, how="strategic", subresource="status")

    async def forget(self, pod: Pod) -> None:
        """Deletes exactly this pod for good; one that is gone, or replaced, is no error. A node may not even enter a tenant
        that has no pod on it any more.
        """
        try:
            await self.client.delete(Pod, ref_of(pod), uid=pod.metadata.uid, grace=0)
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict or error.is_forbidden):
                raise


class _RuntimeClass(msgspec.Struct):
    handler: str


class _RuntimeClasses(msgspec.Struct):
    items: list[_RuntimeClass] = []


def status_patch(pod: Pod, status: PodStatus) -> Raw:
    """A strategic merge patch that makes the status this one: what is empty is taken away, not left as it was. Conditions of
    others stay as they are, also those that were written since the pod was read.
    """
    body = msgspec.to_builtins(status)
    cleared = {info.encode_name: None for info in msgspec.structs.fields(PodStatus)}
    for name in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        body[name] = [_with_required(item) for item in body.get(name) or []] or None
    for name in ("podIPs", "hostIPs"):
        if body.get(name):
            body[name] = [{"$patch": "replace"}, *body[name]]
    standing = {condition["type"] for condition in body.get("conditions") or []}
    gone = [c.type for c in pod.status.conditions or [] if c.type in OWN - standing and c.type != "DisruptionTarget"]
    empty = {"reason": None, "message": None, "observedGeneration": None}
    own = [{**empty, **condition} for condition in body.get("conditions") or [] if condition["type"] in OWN]
    body["conditions"] = [*own, *({"type": name, "$patch": "delete"} for name in gone)]
    return {"metadata": {"uid": pod.metadata.uid}, "status": {**cleared, "phase": status.phase, **body}}


def _with_required(status: Raw) -> Raw:
    """A container's status with those fields that the API wants even when they are zero."""
    for state in (status.get("state") or {}, status.get("lastState") or {}):
        if "terminated" in state:
            state["terminated"].setdefault("exitCode", 0)
    return {"ready": False, "restartCount": 0, "image": "", "imageID": "", **status}
