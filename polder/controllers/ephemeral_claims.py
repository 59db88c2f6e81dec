"""Claims that are made with their pods (generic ephemeral volumes). Follows upstream's ephemeral-volume controller."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
import orjson

from polder.api.errors import ApiError
from polder.api.meta import OwnerReference, Raw
from polder.api.storagefacts import Claim
from polder.api.storageusers import UsedVolume, UsingPod
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.controllers.podcontrol import is_ending
from polder.controllers.reading import find


class EphemeralClaimController:
    """Reconciles a pod that has such volumes; key: the pod's reference."""

    def __init__(self, client: Client, recorder: Recorder | None = None) -> None:
        self._client = client
        self._recorder = recorder

    async def reconcile(self, ref: Ref) -> None:
        """One pass. Raises ApiError."""
        pod = await find(self._client, UsingPod, ref)
        if pod is None or pod.metadata.deletion_timestamp is not None or pod.status.phase in ("Succeeded", "Failed"):
            return
        for volume in pod.spec.volumes or ():
            if volume.ephemeral is not None and volume.ephemeral.volume_claim_template is not None:
                await self._make(ref, pod, volume)

    async def _make(self, ref: Ref, pod: UsingPod, volume: UsedVolume) -> None:
        name = f"{pod.metadata.name}-{volume.name}"
        known = await find(self._client, Claim, Ref(ref.tenant, ref.namespace, name))
        if known is None:
            path = f"/tenants/{quote(ref.tenant)}/api/v1/namespaces/{quote(ref.namespace)}/persistentvolumeclaims"
            try:
                await self._client.raw("POST", path, orjson.dumps(claim_of(pod, volume)))
            except ApiError as error:
                if not (is_ending(error) or error.is_already_exists):
                    words = f"ephemeral volume {volume.name}: create PVC {name}: {error}"
                    self._note(pod, "EphemeralVolumeFailedCreate", words)
                    raise
            return
        if all(owner.uid != pod.metadata.uid for owner in known.metadata.owner_references or ()):
            words = f"PVC {ref.namespace}/{name} was not created for pod {ref.namespace}/{ref.name} (pod is not owner)"
            self._note(pod, "EphemeralVolumeConflict", words)

    def _note(self, pod: UsingPod, reason: str, message: str) -> None:
        if self._recorder is not None:
            self._recorder.event(pod, "Warning", reason, message)


def claim_of(pod: UsingPod, volume: UsedVolume) -> Raw:
    """The claim, as it is sent."""
    template = volume.ephemeral.volume_claim_template if volume.ephemeral is not None else None
    assert template is not None
    owner = OwnerReference(
        api_version="v1", kind="Pod", name=pod.metadata.name, uid=pod.metadata.uid, controller=True,
        block_owner_deletion=True,
    )  # fmt: skip
    meta: Raw = {name: template.metadata[name] for name in ("labels", "annotations") if template.metadata.get(name)}
    meta |= {"name": f"{pod.metadata.name}-{volume.name}", "ownerReferences": [msgspec.to_builtins(owner)]}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": template.spec}
