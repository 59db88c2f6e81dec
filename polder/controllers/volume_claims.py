"""PersistentVolumeClaims: each gets a volume, stays while a pod uses it, and says what it has. Follows upstream's
persistentvolume and pvc-protection controllers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from polder.api.errors import ApiError
from polder.api.meta import Raw, ref_of
from polder.api.storagefacts import Claim, StorageClassFacts, Volume
from polder.api.storageusers import UsedVolume, UsingPod
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.controllers import volumes_pure as pure
from polder.controllers.podcontrol import BEHIND
from polder.controllers.reading import find

AGAIN = 15.0
"""Seconds after which a claim without a volume is looked at again, beside the changes that wake it: a class may come."""


class Provisioner(Protocol):
    """Makes volumes of one driver."""

    driver: str

    async def provide(self, claim: Claim, found: StorageClassFacts) -> str:
        """Makes the claim's volume; why it cannot, empty if it did. Raises ApiError."""
        ...


class VolumeClaimController:
    """Reconciles a claim; key: its reference."""

    def __init__(
        self, client: Client, volumes: Informer[Volume], provisioner: Provisioner, recorder: Recorder | None = None
    ) -> None:
        self._client = client
        self._volumes = volumes
        self._provisioner = provisioner
        self._recorder = recorder

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. The seconds until the next look, None if only a change is worth one. Raises ApiError."""
        claim = await find(self._client, Claim, ref)
        if claim is None:
            return None
        if claim.metadata.deletion_timestamp is not None:
            await self._let_go(claim)
            return None
        held = claim.metadata.finalizers or []
        if pure.CLAIM_HELD not in held:
            claim = await self._change(claim, {"metadata": {"finalizers": [*held, pure.CLAIM_HELD]}})
        if pure.note(claim, pure.BOUND):
            await self._keep(claim)
            return None
        return await self._bind_named(claim) if claim.spec.volume_name else await self._bind_any(claim)

    async def _let_go(self, claim: Claim) -> None:
        """A claim in deletion goes when no pod that has not ended uses it. Raises ApiError."""
        held = claim.metadata.finalizers or []
        if pure.CLAIM_HELD not in held:
            return
        at = ref_of(claim)
        pods = await self._client.list(UsingPod, at.tenant, at.namespace)
        if any(_uses(pod, claim) for pod in pods.items):
            return
        left = [name for name in held if name != pure.CLAIM_HELD]
        await self._change(claim, {"metadata": {"finalizers": left or None}})

    async def _keep(self, claim: Claim) -> None:
        """Says how it is with the volume that the claim has. Raises ApiError."""
        volume = await self._volume(claim)
        if volume is None:
            words = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            return await self._lose(claim, "ClaimLost", words)
        if volume.spec.claim_ref is None or not pure.is_for(volume, claim):
            if volume.spec.claim_ref is None:
                return await self._bind(claim, volume)
            words = "Two claims are bound to the same volume, this one is bound incorrectly"
            return await self._lose(claim, "ClaimMisbound", words)
        return await self._bind(claim, volume)

    async def _lose(self, claim: Claim, reason: str, words: str) -> None:
        if claim.status.phase != "Lost":
            await self._say(claim, {"phase": "Lost", "accessModes": None, "capacity": None})
            self._note(claim, "Warning", reason, words)

    async def _bind_named(self, claim: Claim) -> float | None:
        """For a claim that asks for one volume by its name. Raises ApiError."""
        volume = await self._volume(claim)
        if volume is None:
            return AGAIN
        kept = volume.spec.claim_ref
        if kept is not None and not pure.is_for(volume, claim):
            words = f'volume "{volume.metadata.name}" already bound to a different claim.'
            self._note(claim, "Warning", "FailedBinding", words)
            return AGAIN
        if kept is None and (why := pure.mismatch(volume, claim)):
            words = f'Cannot bind to requested volume "{volume.metadata.name}": {why}'
            self._note(claim, "Warning", "VolumeMismatch", words)
            return AGAIN
        await self._bind(claim, volume)
        return None

    async def _bind_any(self, claim: Claim) -> float | None:
        """For a claim that takes any volume that fits. Raises ApiError."""
        at, name = ref_of(claim), pure.class_of(claim)
        found = await find(self._client, StorageClassFacts, Ref(at.tenant, "", name)) if name else None
        late = pure.is_late(claim, found)
        known = pure.best(claim, self._volumes.by_index("class", (at.tenant, name)), late=late)
        if known is not None:
            volume = await find(self._client, Volume, ref_of(known))
            if volume is None or pure.best(claim, [volume], late=late) is None:
                return BEHIND
            await self._bind(claim, volume)
            return None
        if late:
            words = "waiting for first consumer to be created before binding"
            self._note(claim, "Normal", "WaitForFirstConsumer", words)
            return AGAIN
        if not name:
            words = "no persistent volumes available for this claim and no storage class is set"
            self._note(claim, "Normal", "FailedBinding", words)
            return AGAIN
        return await self._provision(claim, name, found)

    async def _provision(self, claim: Claim, name: str, found: StorageClassFacts | None) -> float | None:
        if found is None:
            words = f'storageclass.storage.k8s.io "{name}" not found'
            self._note(claim, "Warning", "ProvisioningFailed", words)
            return AGAIN
        if found.provisioner == pure.NO_PROVISIONER:
            words = f"no volume plugin matched name: {pure.NO_PROVISIONER}"
            self._note(claim, "Warning", "ProvisioningFailed", words)
            return AGAIN
        if pure.note(claim, pure.PROVISIONER) != found.provisioner:
            notes = {pure.PROVISIONER: found.provisioner}
            claim = await self._change(claim, {"metadata": {"annotations": notes}})
        if found.provisioner != self._provisioner.driver:
            words = (
                f"Waiting for a volume to be created either by the external provisioner '{found.provisioner}' or manually "
                "by the system administrator. If volume creation is delayed, please verify that the provisioner is running "
                "and correctly registered."
            )
            self._note(claim, "Normal", "ExternalProvisioning", words)
            return AGAIN
        why = await self._provisioner.provide(claim, found)
        if why:
            self._note(claim, "Warning", "ProvisioningFailed", why)
            return AGAIN
        return BEHIND

    async def _bind(self, claim: Claim, volume: Volume) -> None:
        """Each step says what the one before has done: whoever ends between two is followed by one that goes on. Raises
        ApiError.
        """
        patch = pure.volume_patch(volume, claim)
        if patch is not None:
            volume = await self._client.patch(Volume, ref_of(volume), patch)
        if volume.status.phase != "Bound":
            status = {"phase": "Bound", "message": None, "reason": None}
            meta = {"uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version}
            await self._client.patch(Volume, ref_of(volume), {"metadata": meta, "status": status}, subresource="status")
        change = pure.claim_patch(claim, volume)
        if change is not None:
            claim = await self._client.patch(Claim, ref_of(claim), change)
        if claim.status.phase != "Bound" or claim.status.capacity is None:
            await self._say(claim, pure.claim_status(volume))

    async def _volume(self, claim: Claim) -> Volume | None:
        return await find(self._client, Volume, Ref(ref_of(claim).tenant, "", claim.spec.volume_name))

    async def _change(self, claim: Claim, patch: Mapping[str, Raw]) -> Claim:
        meta = {"uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version}
        return await self._client.patch(Claim, ref_of(claim), {"metadata": {**meta, **patch["metadata"]}})

    async def _say(self, claim: Claim, status: Raw) -> None:
        patch = {"metadata": {"uid": claim.metadata.uid}, "status": status}
        try:
            await self._client.patch(Claim, ref_of(claim), patch, subresource="status")
        except ApiError as error:
            if not error.is_not_found:
                raise

    def _note(self, claim: Claim, kind: str, reason: str, message: str) -> None:
        if self._recorder is not None:
            self._recorder.event(claim, kind, reason, message)


def _uses(pod: UsingPod, claim: Claim) -> bool:
    """Whether a pod that may run, or still holds its volumes, has the claim."""
    if pod.status.phase in ("Succeeded", "Failed"):
        return False
    return any(_claim_of(pod, volume) == claim.metadata.name for volume in pod.spec.volumes or ())


def _claim_of(pod: UsingPod, volume: UsedVolume) -> str:
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name
    return f"{pod.metadata.name}-{volume.name}" if volume.ephemeral is not None else ""
