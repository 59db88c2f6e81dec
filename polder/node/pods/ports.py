"""What running pods asks of others: the API, the network, the record of events."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from polder.api.core import ConfigMap, Pod, PodStatus, Secret, Service
from polder.api.meta import Object
from polder.api.storagefacts import Claim, Volume
from polder.base.ids import TenantName
from polder.base.ref import Ref

NORMAL = "Normal"
WARNING = "Warning"

Prepare = Callable[[Pod], Coroutine[Any, Any, None]]
"""Makes the network ready for a pod before its sandbox; raises RetryableError or PermanentError with a sentence."""

Services = Callable[[TenantName, str], Sequence[Service]]
"""The services of a tenant's namespace, as far as the node knows them."""


def no_services(tenant: TenantName, namespace: str) -> Sequence[Service]:
    """Where nobody knows of any."""
    del tenant, namespace
    return ()


class Cluster(Protocol):
    """The API as far as pods need it. Each call raises ApiError, or OSError where the server cannot be reached."""

    async def config_map(self, ref: Ref) -> ConfigMap | None:
        """A ConfigMap; None if there is none."""
        ...

    async def secret(self, ref: Ref) -> Secret | None:
        """A Secret; None if there is none."""
        ...

    async def claim(self, ref: Ref) -> Claim | None:
        """A PersistentVolumeClaim; None if there is none."""
        ...

    async def volume(self, tenant: TenantName, name: str) -> Volume | None:
        """A PersistentVolume that a claim of a pod here is bound to; None if there is none."""
        ...

    async def kubernetes_service(self, tenant: TenantName) -> Service | None:
        """The tenant's ``default/kubernetes``; None if there is none."""
        ...

    async def runtime_handler(self, tenant: TenantName, name: str) -> str | None:
        """The handler of a RuntimeClass; None if there is no such class. Raises PermanentError where the tenant may not name
        that handler.
        """
        ...

    async def token(self, pod: Pod, audience: str, seconds: int) -> str:
        """A token of the pod's service account, bound to the pod."""
        ...

    async def pod_exists(self, ref: Ref, uid: str) -> bool:
        """Whether the server, asked directly, has this pod, of this UID, bound to this node."""
        ...

    async def write_status(self, pod: Pod, status: PodStatus) -> None:
        """Writes the status of exactly this pod (by UID)."""
        ...

    async def forget(self, pod: Pod) -> None:
        """Deletes exactly this pod (by UID) for good; one that is gone is no error."""
        ...


class Recorder(Protocol):
    """Events about pods, in upstream's words."""

    def event(self, obj: Object, type: str, reason: str, message: str, part: str = "") -> None:
        """Notes one event, about the pod or a part of it; returns at once and never fails."""
        ...


def part_of(pod: Pod, container: str) -> str:
    """A container of a pod as the part that an event is about, in upstream's form; empty if the pod has no such container."""
    spec = pod.spec
    groups = {
        "containers": spec.containers,
        "initContainers": spec.init_containers,
        "ephemeralContainers": spec.ephemeral_containers,
    }
    for group, members in groups.items():
        if any(one.name == container for one in members or ()):
            return f"spec.{group}{{{container}}}"
    return ""
