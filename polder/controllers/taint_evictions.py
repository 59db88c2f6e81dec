"""Pods that do not bear the NoExecute taints of their node go, those that bear them for a time when it is over. Follows
upstream's taint eviction controller.

A tenant's own taints of a node are borne or not by its own pods alone. When a server begins anew, times begin anew.
"""

from __future__ import annotations

from polder.api.core import Pod
from polder.api.errors import ApiError
from polder.api.podfacts import ControlledPod
from polder.base.clock import Clock, stamp
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.controllers.nodeviews import NodeViews
from polder.controllers.reading import find
from polder.controllers.taints_pure import seconds_to_stay

REASON = "DeletionByTaintManager"
MESSAGE = "Taint manager: deleting due to NoExecute taint"


class TaintEvictionController:
    """Reconciles pods on nodes with such taints; key: the pod's reference."""

    def __init__(
        self,
        client: Client,
        views: NodeViews,
        pods: Informer[ControlledPod],
        clock: Clock,
        recorder: Recorder | None = None,
    ) -> None:
        self._client = client
        self._views = views
        self._pods = pods
        self._clock = clock
        self._recorder = recorder
        self._since: dict[Ref, tuple[str, float]] = {}

    async def reconcile(self, ref: Ref) -> float | None:
        """One look. The seconds until the pod's time is over, None if it may stay. Raises ApiError."""
        known = self._pods.get(ref)
        taints = self._views.evicting(ref.tenant, known.spec.node_name) if known is not None else ()
        if known is None or not taints:
            self._stays(ref, known)
            return None
        pod = await find(self._client, Pod, ref)
        if pod is None or pod.metadata.deletion_timestamp is not None or pod.spec.node_name != known.spec.node_name:
            self._since.pop(ref, None)
            return None
        seconds = seconds_to_stay(taints, pod.spec.tolerations or ())
        if seconds is None:
            self._stays(ref, known)
            return None
        wait = self._begun(ref, pod) + seconds - self._clock.monotonic()
        if seconds and wait > 0:
            return wait
        await self._evict(ref, pod)
        return None

    def _begun(self, ref: Ref, pod: Pod) -> float:
        """When the pod's time began."""
        uid, since = self._since.get(ref, ("", 0.0))
        if uid != pod.metadata.uid:
            since = self._clock.monotonic()
            self._since[ref] = (pod.metadata.uid, since)
        return since

    def _stays(self, ref: Ref, pod: ControlledPod | None) -> None:
        if self._since.pop(ref, None) is not None and pod is not None and self._recorder is not None:
            words = f"Cancelling deletion of Pod {ref.namespace}/{ref.name}"
            self._recorder.event(pod, "Normal", "TaintManagerEviction", words)

    async def _evict(self, ref: Ref, pod: Pod) -> None:
        if self._recorder is not None:
            words = f"Marking for deletion Pod {ref.namespace}/{ref.name}"
            self._recorder.event(pod, "Normal", "TaintManagerEviction", words)
        try:
            await disrupt(self._client, ref, pod, stamp(self._clock.now()), (REASON, MESSAGE))
            await self._client.delete(Pod, ref, uid=pod.metadata.uid)
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise
        self._since.pop(ref, None)


async def disrupt(client: Client, ref: Ref, pod: Pod, at: str, why: tuple[str, str], phase: str = "") -> None:
    """Says on a pod that it is made to go, by reason and message, and on demand that it has ended (``phase``)."""
    said = {
        "type": "DisruptionTarget",
        "status": "True",
        "observedGeneration": pod.metadata.generation,
        "reason": why[0],
        "message": why[1],
        "lastTransitionTime": at,
    }
    status = {"conditions": [said], **({"phase": phase} if phase else {})}
    patch = {"metadata": {"uid": pod.metadata.uid}, "status": status}
    await client.patch(Pod, ref, patch, how="strategic", subresource="status")
