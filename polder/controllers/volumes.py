"""PersistentVolumes: kept for a claim, free, or left behind by one; and what then becomes of them. Follows upstream's
persistentvolume and pv-protection controllers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from polder.api.meta import ref_of
from polder.api.storagefacts import Claim, Volume
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.controllers import volumes_pure as pure
from polder.controllers.reading import find, remove
from polder.controllers.volumes_pure import Fate

RETRY = 15.0
"""Seconds after which a node is asked again to remove what a volume held."""
Looked = Callable[[Ref], None]
"""Has a claim looked at."""


class Reclaimer(Protocol):
    """Removes what volumes of one driver hold."""

    driver: str

    async def discard(self, volume: Volume) -> bool:
        """Whether what the volume held is gone. Raises PolderError."""
        ...


class VolumeController:
    """Reconciles a volume; key: its reference."""

    def __init__(self, client: Client, reclaimer: Reclaimer, look: Looked, recorder: Recorder | None = None) -> None:
        self._client = client
        self._reclaimer = reclaimer
        self._look = look
        self._recorder = recorder

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. The seconds until the next look, None if only a change is worth one. Raises ApiError."""
        volume = await find(self._client, Volume, ref)
        if volume is None:
            return None
        fate = pure.fate_of(volume, await self._claim(volume), self._reclaimer.driver)
        volume = await self._held(volume, fate)
        if volume is None:
            return None
        if fate.unbind:
            await self._client.patch(Volume, ref, pure.unbound(volume))
            return None
        volume = await self._say(volume, fate)
        if fate.look and volume.spec.claim_ref is not None:
            kept = volume.spec.claim_ref
            self._look(Ref(ref.tenant, kept.namespace, kept.name))
        if fate.delete and volume.metadata.deletion_timestamp is None:
            return await self._reclaim(volume)
        return None

    async def _claim(self, volume: Volume) -> Claim | None:
        kept = volume.spec.claim_ref
        if kept is None:
            return None
        return await find(self._client, Claim, Ref(ref_of(volume).tenant, kept.namespace, kept.name))

    async def _held(self, volume: Volume, fate: Fate) -> Volume | None:
        """A volume stays while a claim has it; None if it is let go. Raises ApiError."""
        held = volume.metadata.finalizers or []
        meta = {"uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version}
        if volume.metadata.deletion_timestamp is None:
            if pure.VOLUME_HELD in held:
                return volume
            wanted = {**meta, "finalizers": [*held, pure.VOLUME_HELD]}
            return await self._client.patch(Volume, ref_of(volume), {"metadata": wanted})
        if pure.VOLUME_HELD not in held or fate.phase == "Bound":
            return volume
        left = [name for name in held if name != pure.VOLUME_HELD]
        await self._client.patch(Volume, ref_of(volume), {"metadata": {**meta, "finalizers": left or None}})
        return None

    async def _say(self, volume: Volume, fate: Fate) -> Volume:
        if (volume.status.phase, volume.status.message) == (fate.phase, fate.message):
            return volume
        meta = {"uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version}
        status = {"phase": fate.phase, "message": fate.message or None}
        patch = {"metadata": meta, "status": status}
        volume = await self._client.patch(Volume, ref_of(volume), patch, subresource="status")
        if self._recorder is not None:
            for reason in fate.told:
                self._recorder.event(volume, "Warning", reason, fate.message)
        return volume

    async def _reclaim(self, volume: Volume) -> float | None:
        if not await self._reclaimer.discard(volume):
            return RETRY
        await remove(self._client, Volume, ref_of(volume), volume)
        return None
