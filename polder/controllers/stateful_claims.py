"""The PersistentVolumeClaims of a StatefulSet's pods: made before the pod, owned as the retention policy says."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import orjson

from polder.api.errors import ApiError
from polder.api.kinds import built_in
from polder.api.meta import Object, OwnerReference, ref_of
from polder.api.sets import ClaimRetention, StatefulSet
from polder.base.errors import PolderError, RetryableError
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers import stateful_pure as pure
from polder.controllers.resources import Resource, collection_path, get_object, patch_metadata
from polder.controllers.stateful_pure import Claim, Owners, View

CLAIMS = Resource.of(built_in("v1", "persistentvolumeclaims"))
Note = Callable[[StatefulSet, str, str, str], None]
"""Reports an event: the set, Normal or Warning, reason, message."""


class StaleClaimError(PolderError):
    """A claim of the name still belongs to an earlier pod and goes with it: the new pod waits."""


class ClaimGoingError(RetryableError):
    """A claim is in deletion, and a pod must not be made with it."""


class Claims:
    """All methods raise ApiError."""

    def __init__(self, client: Client, note: Note) -> None:
        self._client = client
        self._note = note

    async def check(self, view: View, owner: OwnerReference, ordinal: int) -> None:
        """Raises StaleClaimError if a pod of the ordinal has to wait for a claim to go."""
        owners = _owners(view, owner, ordinal, "")
        if owners.policy.when_scaled == pure.RETAIN:
            return
        for claim in pure.claims_of(view.stateful, ordinal):
            found = await self._find(view.stateful, claim)
            if found is not None and owners.is_stale(found.metadata.owner_references or ()):
                raise StaleClaimError(f"PersistentVolumeClaim {claim.name} belongs to an earlier pod")

    async def ensure(self, stateful: StatefulSet, ordinal: int) -> None:
        """Makes the claims that are missing. Raises ClaimGoingError."""
        ref, name = ref_of(stateful), stateful.metadata.name
        for claim in pure.claims_of(stateful, ordinal):
            found = await self._find(stateful, claim)
            if found is not None and found.metadata.deletion_timestamp is not None:
                raise ClaimGoingError(f"PersistentVolumeClaim {claim.name} is being deleted", 1.0)
            if found is not None:
                continue
            path = collection_path(ref.tenant, CLAIMS, ref.namespace)
            where = f"Pod {name}-{ordinal} in StatefulSet {name}"
            try:
                await self._client.raw("POST", path, orjson.dumps(claim.body))
            except ApiError as refused:
                if refused.is_already_exists:
                    continue
                self._note(
                    stateful,
                    "Warning",
                    "FailedCreate",
                    f"Create Claim {claim.name} for {where} failed error: {refused}",
                )
                raise
            self._note(stateful, "Normal", "SuccessfulCreate", f"Create Claim {claim.name} {where} success")

    async def retain(self, view: View, owner: OwnerReference, ordinal: int, pod_uid: str) -> None:
        """Puts the owners of an ordinal's claims right."""
        owners = _owners(view, owner, ordinal, pod_uid)
        for claim in pure.claims_of(view.stateful, ordinal):
            found = await self._find(view.stateful, claim)
            if found is None:
                continue
            wanted = owners.wanted(found.metadata.owner_references or ())
            if wanted is not None:
                at = _at(view.stateful, claim)
                refs = {"ownerReferences": msgspec.to_builtins(wanted) or None}
                await patch_metadata(self._client, CLAIMS, at, found, refs)

    async def _find(self, stateful: StatefulSet, claim: Claim) -> Object | None:
        return await get_object(self._client, CLAIMS, _at(stateful, claim))


def _at(stateful: StatefulSet, claim: Claim) -> Ref:
    ref = ref_of(stateful)
    return Ref(ref.tenant, ref.namespace, claim.name)


def _owners(view: View, owner: OwnerReference, ordinal: int, pod_uid: str) -> Owners:
    policy = view.stateful.spec.persistent_volume_claim_retention_policy or ClaimRetention()
    name = f"{view.stateful.metadata.name}-{ordinal}"
    pod = OwnerReference(api_version="v1", kind="Pod", name=name, uid=pod_uid)
    return Owners(owner, pod, policy, ordinal in view.ordinals)
