"""Volumes that a claim is bound to: paths of the node for the platform's pods, directories of Polder's for everybody's.

A PersistentVolume is the tenant's own object: what it says is believed of nothing outside the tenant. ``local`` and
``hostPath`` name any path of the node and are therefore for root's pods. A volume of Polder's driver is a
directory of the tenant's (``storage.py``): who writes another handle gets another directory of the same tenant's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from polder.api import storagefacts
from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.podvolumes import Volume
from polder.api.quantity import whole
from polder.base.errors import PermanentError, RetryableError
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.node.pods.ports import Cluster
from polder.node.volumes.hostpaths import host_path
from polder.node.volumes.mounting import Mounted
from polder.node.volumes.ownership import give_to_group
from polder.node.volumes.storage import DRIVER, Storage
from polder.node.walks import Walks


@dataclass(frozen=True, slots=True)
class Claims:
    """Finds what a claim is bound to. ``storage`` holds the directories of Polder's driver."""

    cluster: Cluster
    storage: Storage
    walks: Walks = field(default_factory=Walks)

    async def mounted(self, pod: Pod, volume: Volume) -> Mounted | None:
        """The claim's volume, ready; None for a volume of another kind. Raises RetryableError while it is not bound,
        PermanentError for one that this node cannot mount.
        """
        if volume.persistent_volume_claim is None and volume.ephemeral is None:
            return None
        tenant, claim = tenant_of(pod.metadata), await self._claim(pod, volume)
        found = await self.cluster.volume(tenant, claim.spec.volume_name)
        kept = found.spec.claim_ref if found is not None else None
        if found is None or kept is None or kept.uid != claim.metadata.uid:
            raise RetryableError(
                f'persistentvolumeclaim "{claim.metadata.name}" is bound to a volume that is not its own'
            )
        if found.spec.volume_mode == "Block":
            raise PermanentError(f"volume {found.metadata.name}: volumeMode Block is not supported")
        path = await self.walks.run(tenant, self._path, pod, found)
        if found.spec.csi is not None:
            self.storage.hold((tenant, pod.metadata.uid), path, _asked(claim))
        asked = volume.persistent_volume_claim
        read_only = bool(asked and asked.read_only) or _is_read_only(found)
        return Mounted(path, read_only=read_only, of_node=found.spec.csi is None)

    async def release(self, uid: str) -> None:
        """What the volumes hold stays; it is no longer this pod's."""
        self.storage.release(uid)

    async def _claim(self, pod: Pod, volume: Volume) -> storagefacts.Claim:
        asked, meta = volume.persistent_volume_claim, pod.metadata
        name = asked.claim_name if asked is not None else f"{meta.name}-{volume.name}"
        claim = await self.cluster.claim(Ref(tenant_of(meta), meta.namespace, name))
        if claim is None:
            raise RetryableError(f'persistentvolumeclaim "{name}" not found')
        if asked is None and meta.uid not in {owner.uid for owner in claim.metadata.owner_references or []}:
            raise PermanentError(f'PVC {meta.namespace}/{name} was not created for pod "{meta.namespace}/{meta.name}"')
        if claim.metadata.deletion_timestamp is not None and asked is None:
            raise RetryableError(f'persistentvolumeclaim "{name}" is being deleted')
        if claim.status.phase != "Bound" or not claim.spec.volume_name:
            raise RetryableError(f'persistentvolumeclaim "{name}" is not bound')
        return claim

    def _path(self, pod: Pod, volume: storagefacts.Volume) -> Path:
        spec, tenant, name = volume.spec, tenant_of(pod.metadata), volume.metadata.name
        if spec.csi is not None and spec.csi.driver == DRIVER:
            return self._shared(pod, self.storage.directory(tenant, spec.csi.volume_handle))
        if spec.local is None and spec.host_path is None:
            raise PermanentError(f"volume {name} is of a kind that is not supported")
        if tenant != ROOT:
            raise PermanentError(f"volume {name}: paths of a node are for pods of the platform (tenant root) only")
        if spec.host_path is not None:
            return host_path(spec.host_path.path, spec.host_path.type)
        assert spec.local is not None
        return self._shared(pod, host_path(spec.local.path, "Directory"))

    def _shared(self, pod: Pod, path: Path) -> Path:
        """Ready for the pod's group, as its policy says."""
        context = pod.spec.security_context
        if context is not None and context.fs_group is not None:
            give_to_group(path, context.fs_group, context.fs_group_change_policy)
        return path


def _asked(claim: storagefacts.Claim) -> int:
    """Bytes. The claim's own words, which quotas bound; what a volume says of its size is its tenant's."""
    resources = claim.spec.resources
    return whole((resources.requests or {}).get("storage", 0)) if resources is not None else 0


def _is_read_only(volume: storagefacts.Volume) -> bool:
    return volume.spec.csi is not None and volume.spec.csi.read_only
