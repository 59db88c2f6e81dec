"""Which change concerns which claim or volume."""

from __future__ import annotations

from polder.api.meta import ref_of
from polder.api.podfacts import ControlledPod
from polder.api.storagefacts import Claim, Volume
from polder.base.ref import Ref
from polder.controllers.caches import Caches, namespace_of
from polder.controllers.runners import Runners
from polder.controllers.volumes_pure import class_of_volume

_ENDED = ("Succeeded", "Failed")


class StorageWiring:
    """Turns changes of caches into claims, volumes and pods to look at."""

    def __init__(self, caches: Caches, runners: Runners) -> None:
        self._caches = caches
        self._runners = runners

    def attach(self) -> None:
        """Hears every change from here on, and of every object that is known already."""
        self._caches.claims.on_change(self._claim)
        self._caches.volumes.on_change(self._volume)
        self._caches.pods.on_change(self._pod)

    def _claim(self, ref: Ref, old: Claim | None, new: Claim | None) -> None:
        if new is not None:
            self._runners.volume_claims.add(ref)
        names = {claim.spec.volume_name for claim in (old, new) if claim is not None} - {""}
        for name in names:
            self._runners.volumes.add(Ref(ref.tenant, "", name))
        if new is None:
            for volume in self._caches.volumes.by_index("claim", ref):
                self._runners.volumes.add(ref_of(volume))

    def _volume(self, ref: Ref, old: Volume | None, new: Volume | None) -> None:
        if new is not None:
            self._runners.volumes.add(ref)
        for volume in (old, new):
            kept = volume.spec.claim_ref if volume is not None else None
            if kept is not None:
                self._runners.volume_claims.add(Ref(ref.tenant, kept.namespace, kept.name))
        if new is not None and new.spec.claim_ref is None and new.status.phase == "Available":
            self._waiting(ref, new)

    def _waiting(self, ref: Ref, volume: Volume) -> None:
        """A volume is free: claims of its class that have none may want it."""
        for claim in self._caches.claims.by_index("waiting", (ref.tenant, class_of_volume(volume))):
            self._runners.volume_claims.add(ref_of(claim))

    def _pod(self, ref: Ref, old: ControlledPod | None, new: ControlledPod | None) -> None:
        if old is None and new is not None and any(v.ephemeral is not None for v in new.spec.volumes or ()):
            self._runners.ephemeral_claims.add(ref)
        ended = new is None or (new.status.phase in _ENDED and (old is None or old.status.phase not in _ENDED))
        pod = new or old
        if ended and pod is not None:
            for claim in self._caches.claims.by_index("going", namespace_of(pod)):
                self._runners.volume_claims.add(ref_of(claim))
