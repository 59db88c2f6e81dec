"""What the scheduler writes: a binding, or a condition that says why there is none."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from polder.api.core import Binding, ObjectReference
from polder.api.errors import ApiError
from polder.api.meta import ObjectMeta, ref_of
from polder.api.podfacts import ScheduledPod
from polder.base.clock import Clock, stamp
from polder.client.client import Client

CONDITION = "PodScheduled"


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


async def explain(client: Client, pod: ScheduledPod, message: str, clock: Clock) -> bool:
    """Writes the condition PodScheduled=False; False if the pod says so already or is gone. Raises ApiError."""
    known = next((c for c in pod.status.conditions or [] if c.type == CONDITION), None)
    if known is not None and known.status == "False" and known.message == message:
        return False
    now = stamp(clock.now())
    condition = {
        "type": CONDITION,
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": known.last_transition_time if known and known.status == "False" else now,
    }
    patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}
    try:
        await client.patch(ScheduledPod, ref_of(pod), patch, how="strategic", subresource="status")
    except ApiError as error:
        if error.is_not_found or error.is_conflict:
            return False
        raise
    return True
