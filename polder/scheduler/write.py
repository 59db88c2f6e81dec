"""What the scheduler writes: a binding, a condition that says why there is none, the end of a victim, what a claim gets."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import msgspec

from polder.api.core import Binding, ObjectReference
from polder.api.errors import ApiError
from polder.api.meta import ObjectMeta, ref_of
from polder.api.podfacts import ScheduledPod
from polder.api.storagefacts import Claim, Volume
from polder.base.clock import Clock, stamp
from polder.client.client import Client
from polder.scheduler import claims

CONDITION: Final = "PodScheduled"
TARGET: Final = "DisruptionTarget"
BY_SCHEDULER: Final = "PreemptionByScheduler"
PREEMPTING: Final = "default-scheduler: preempting to accommodate a higher priority pod"


async def bind(client: Client, pod: ScheduledPod, node: str) -> None:
    """Binds exactly this pod (by UID). Raises ApiError; a pod that is bound already is a conflict."""
    ref = ref_of(pod)
    binding = Binding(
        api_version="v1",
        kind="Binding",
        metadata=ObjectMeta(name=ref.name, namespace=ref.namespace, uid=pod.metadata.uid),
        target=ObjectReference(api_version="v1", kind="Node", name=node),
    )
    path = f"/tenants/{quote(ref.tenant)}/api/v1/namespaces/{quote(ref.namespace)}/pods/{quote(ref.name)}/binding"
    await client.raw("POST", path, msgspec.json.encode(binding))


def says(pod: ScheduledPod, message: str, nominated: str = "") -> bool:
    """Whether the pod's status says it already."""
    known = next((c for c in pod.status.conditions or [] if c.type == CONDITION), None)
    is_said = known is not None and known.status == "False" and known.message == message
    return is_said and pod.status.nominated_node_name == nominated


async def explain(client: Client, pod: ScheduledPod, message: str, clock: Clock, nominated: str = "") -> bool:
    """Writes the condition PodScheduled=False, and the node where room is made; False if the pod says so already or is gone.
    Raises ApiError.
    """
    if says(pod, message, nominated):
        return False
    known = next((c for c in pod.status.conditions or [] if c.type == CONDITION), None)
    now = stamp(clock.now())
    condition = {
        "type": CONDITION,
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": known.last_transition_time if known and known.status == "False" else now,
        "observedGeneration": pod.metadata.generation,
    }
    status: dict[str, object] = {"conditions": [condition]}
    if pod.status.nominated_node_name != nominated:
        status["nominatedNodeName"] = nominated or None
    return await _patch_status(client, pod, status)


async def _patch_status(client: Client, pod: ScheduledPod, status: dict[str, object]) -> bool:
    """False if this pod is gone. Raises ApiError."""
    patch = {"metadata": {"uid": pod.metadata.uid}, "status": status}
    try:
        await client.patch(ScheduledPod, ref_of(pod), patch, how="strategic", subresource="status")
    except ApiError as error:
        if error.is_not_found or error.is_conflict:
            return False
        raise
    return True


async def evict(client: Client, pod: ScheduledPod, clock: Clock) -> bool:
    """Says in the pod's status that it makes room, and deletes it; False if it is gone. Raises ApiError."""
    condition = {"type": TARGET, "status": "True", "reason": BY_SCHEDULER, "message": PREEMPTING,
                 "lastTransitionTime": stamp(clock.now()), "observedGeneration": pod.metadata.generation}  # fmt: skip
    if not await _patch_status(client, pod, {"conditions": [condition]}):
        return False
    try:
        await client.delete(ScheduledPod, ref_of(pod), uid=pod.metadata.uid)
    except ApiError as error:
        if error.is_not_found or error.is_conflict:
            return False
        raise
    return True


async def provide(client: Client, binding: claims.Binding, node: str) -> None:
    """Gives a claim its volume, or has one made for the node. Raises ApiError."""
    claim = binding.claim
    ref, version = ref_of(claim), claim.metadata.resource_version
    if binding.volume is None:
        wanted = {"resourceVersion": version, "annotations": {claims.SELECTED_NODE: node}}
        await client.patch(Claim, ref, {"metadata": wanted})
        return
    volume = binding.volume
    kept = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": ref.namespace, "name": ref.name,
            "uid": claim.metadata.uid, "resourceVersion": version}  # fmt: skip
    meta = {
        "resourceVersion": volume.metadata.resource_version,
        "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"},
    }
    await client.patch(Volume, ref_of(volume), {"metadata": meta, "spec": {"claimRef": kept}})
