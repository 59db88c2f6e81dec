"""Pods that no node will ever remove: bound to a node that is gone or out of service, or in deletion and bound to none; and
records of ended pods beyond a number. Follows upstream's pod garbage collector.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from polder.api.core import Node, Pod
from polder.api.meta import ref_of
from polder.api.podfacts import ControlledPod
from polder.base.clock import Clock, stamp
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.missing import MissingNodes
from polder.controllers.node_health import is_out_of_service
from polder.controllers.reading import find
from polder.controllers.taint_evictions import disrupt

ENDED = ("Succeeded", "Failed")
_REASON = "DeletionByPodGC"


class PodController:
    """Reconciles pods of all tenants that look lost; key: the pod's reference."""

    def __init__(self, client: Client, missing: MissingNodes, clock: Clock) -> None:
        self._client = client
        self._missing = missing
        self._clock = clock

    async def reconcile(self, ref: Ref) -> float | None:
        """Removes the pod at once if it is lost; the seconds until the next look if that is not sure yet."""
        pod = await find(self._client, Pod, ref)
        if pod is None:
            return None
        going = pod.metadata.deletion_timestamp is not None
        if not pod.spec.node_name:
            if going:
                await self._remove(ref, pod, "PodGC: the pod was to go before it had a node")
            return None
        wait = await self._missing.wait(pod.spec.node_name)
        if wait is not None and wait > 0:
            return wait
        if wait is not None:
            await self._remove(ref, pod, "PodGC: node no longer exists")
        elif going and await self._is_out_of_service(pod.spec.node_name):
            await self._remove(ref, pod, "PodGC: node is out of service")
        return None

    async def _is_out_of_service(self, name: str) -> bool:
        node = await find(self._client, Node, Ref(ROOT, "", name))
        return node is not None and is_out_of_service(node)

    async def _remove(self, ref: Ref, pod: Pod, why: str) -> None:
        """A pod that nobody will report on any more has failed; then it goes."""
        if pod.status.phase not in ENDED:
            await disrupt(self._client, ref, pod, stamp(self._clock.now()), (_REASON, why), "Failed")
        await self._client.delete(Pod, ref, uid=pod.metadata.uid, grace=0)


class EndedPodController:
    """Removes the record of a pod that has ended; key: the pod's reference."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def reconcile(self, ref: Ref) -> float | None:
        """Raises ApiError."""
        pod = await find(self._client, Pod, ref)
        if pod is not None and pod.status.phase in ENDED:
            await self._client.delete(Pod, ref, uid=pod.metadata.uid, grace=0)
        return None


def surplus(pods: Iterable[ControlledPod], keep: int) -> Iterator[Ref]:
    """Of the pods that have ended, the oldest beyond what a tenant may keep. Pure."""
    ended: defaultdict[TenantName, list[tuple[str, Ref]]] = defaultdict(list)
    for pod in pods:
        if pod.status.phase in ENDED and pod.metadata.deletion_timestamp is None:
            ref = ref_of(pod)
            ended[ref.tenant].append((pod.metadata.creation_timestamp or "", ref))
    for found in ended.values():
        if len(found) > keep:
            yield from (ref for _, ref in sorted(found, key=lambda item: (item[0], str(item[1])))[: len(found) - keep])
