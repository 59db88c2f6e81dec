"""Where a pod runs that a request wants to reach into."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from polder.api.core import Pod
from polder.api.errors import ApiError, bad_request, not_found
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.apiserver.types import RequestInfo
from polder.base.ids import TenantName
from polder.store.protocol import Key, Store

POD = kind_of(Pod)


@dataclass(frozen=True, slots=True)
class Place:
    """A pod as it is stored, and its node."""

    tenant: TenantName
    namespace: str
    name: str
    pod: Raw
    node: str

    @property
    def uid(self) -> str:
        """The pod's UID: it stands for one pod of one tenant."""
        return str(self.pod["metadata"]["uid"])

    def header(self, kind: str) -> Raw:
        """What begins a stream to the node."""
        return {
            "kind": kind, "tenant": self.tenant, "namespace": self.namespace, "pod": self.name, "uid": self.uid,
        }  # fmt: skip


async def read_pod(store: Store, info: RequestInfo, name: str) -> Raw:
    """The stored pod. Raises ApiError 404."""
    entry = await store.get(Key(POD.resource, info.tenant, info.namespace, name))
    if entry is None:
        raise not_found(POD, name)
    found: Raw = orjson.loads(entry.value)
    return found


def place_of(pod: Raw, info: RequestInfo) -> Place:
    """Where a pod runs. Raises ApiError 400 where that is not known yet."""
    name, node = str(pod["metadata"]["name"]), str((pod.get("spec") or {}).get("nodeName") or "")
    if not node:
        raise bad_request(f"pod {name} does not have a host assigned")
    return Place(info.tenant, info.namespace, name, pod, node)


def choose_container(pod: Raw, asked: str) -> str:
    """The container meant, the only one where none is named. Raises ApiError 400."""
    name, spec = pod["metadata"]["name"], pod.get("spec") or {}
    plain = _names(spec, "containers")
    every = [*_names(spec, "initContainers"), *plain, *_names(spec, "ephemeralContainers")]
    if asked:
        if asked not in every:
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    if len(plain) == 1:
        return plain[0]
    raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{' '.join(every)}]")


def _names(spec: Raw, field: str) -> list[str]:
    return [str(container["name"]) for container in spec.get(field) or ()]


def backend_away(error: Exception) -> ApiError:
    """500: the node's agent does not answer."""
    return ApiError(500, "", f"error dialing backend: {error}")
