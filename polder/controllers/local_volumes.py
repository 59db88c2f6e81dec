"""Volumes of Polder's own driver: a directory of the tenant's on the node that a claim's first pod was placed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlencode

import msgspec
import orjson

from polder.api.errors import ApiError
from polder.api.meta import Raw, ref_of
from polder.api.storagefacts import Claim, StorageClassFacts, Volume
from polder.client.client import Client
from polder.controllers import volumes_pure as pure

DRIVER: Final = "local.polder.dev"
HOSTNAME: Final = "kubernetes.io/hostname"


def volume_of(claim: Claim, found: StorageClassFacts, node: str) -> Raw:
    """The volume of a claim, as it is sent. Its name is the claim's UID: so it is made once."""
    name = f"pvc-{claim.metadata.uid}"
    requests = claim.spec.resources.requests if claim.spec.resources is not None else None
    term = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [node]}]}
    kept = msgspec.to_builtins(pure.reference(claim))
    spec: Raw = {
        "capacity": {"storage": (requests or {}).get("storage", "0")},
        "accessModes": claim.spec.access_modes,
        "persistentVolumeReclaimPolicy": found.reclaim_policy,
        "storageClassName": found.metadata.name,
        "volumeMode": "Filesystem",
        "claimRef": kept,
        "csi": {"driver": DRIVER, "volumeHandle": name},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
    }
    meta = {"name": name, "annotations": {pure.PROVISIONED_BY: DRIVER}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta, "spec": spec}


def node_of(volume: Volume) -> str:
    """The hostname that a volume of ours is bound to, empty if it says none."""
    terms = ((volume.spec.node_affinity or {}).get("required") or {}).get("nodeSelectorTerms") or []
    for term in terms[:1]:
        for clause in term.get("matchExpressions") or ():
            if clause.get("key") == HOSTNAME and clause.get("values"):
                return str(clause["values"][0])
    return ""


class LocalVolumes:
    """Makes the volumes, and has nodes remove what they held. ``has_node`` says whether a node exists."""

    driver = DRIVER

    def __init__(self, client: Client, has_node: Callable[[str], bool]) -> None:
        self._client = client
        self._has_node = has_node

    async def provide(self, claim: Claim, found: StorageClassFacts) -> str:
        """Makes the claim's volume; why it cannot, empty if it did. Raises ApiError."""
        node = pure.note(claim, pure.SELECTED_NODE)
        if not node:
            return f"class {found.metadata.name}: {DRIVER} needs volumeBindingMode {pure.LATE}"
        if claim.spec.volume_mode != "Filesystem":
            return f"{DRIVER} makes volumes of volumeMode Filesystem only"
        if claim.spec.selector is not None:
            return "claim.Spec.Selector is not supported for dynamic provisioning"
        path = f"/tenants/{quote(ref_of(claim).tenant)}/api/v1/persistentvolumes"
        try:
            await self._client.raw("POST", path, orjson.dumps(volume_of(claim, found, node)))
        except ApiError as error:
            if not error.is_already_exists:
                raise
        return ""

    async def discard(self, volume: Volume) -> bool:
        """Whether the directory is gone, with its node or without. Raises PolderError."""
        node, at = node_of(volume), ref_of(volume)
        handle = volume.spec.csi.volume_handle if volume.spec.csi is not None else ""
        if handle != volume.metadata.name or not self._has_node(node):
            return True  # not one that was made here; or the disk went with its node
        path = f"/tenants/{quote(at.tenant)}/polder/v1/discard?{urlencode({'node': node, 'handle': handle})}"
        await self._client.raw("POST", path, b"{}")
        return True
