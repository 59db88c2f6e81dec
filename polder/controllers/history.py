"""ControllerRevisions of a set, read from the server and written there. Follows upstream's controller history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote

import msgspec

from polder.api.errors import ApiError
from polder.api.labelselector import matcher_of
from polder.api.meta import LabelSelector, OwnerReference, ref_of
from polder.api.sets import ControllerRevision
from polder.base.errors import RetryableError
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers import history_pure as pure
from polder.controllers.disruption import controller_of
from polder.controllers.history_pure import Parent
from polder.controllers.reading import find

COLLISIONS = 32
"""Names that are tried for a revision while strangers have them."""


class NoNameError(RetryableError):
    """Every name of a revision is somebody else's."""


class History:
    """All methods raise ApiError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def revisions(
        self, at: Ref, owner: OwnerReference, selector: LabelSelector, *, going: bool
    ) -> list[ControllerRevision]:
        """The owner's revisions that carry its labels, oldest first; takes those that nobody owns. ``at`` is the owner's
        reference.
        """
        fits = matcher_of(msgspec.to_builtins(selector))
        labels = ",".join(f"{key}={value}" for key, value in (selector.match_labels or {}).items())
        own = []
        for found in (await self._client.list(ControllerRevision, at.tenant, at.namespace, labels=labels)).items:
            holder = controller_of(found)
            if holder is not None and holder.uid == owner.uid:
                own.append(found)
            elif holder is None and not going and _is_free(found) and fits.matches_labels(found.metadata.labels or {}):
                own.append(await self._adopt(found, owner))
        return pure.in_order(own)

    async def _adopt(self, found: ControllerRevision, owner: OwnerReference) -> ControllerRevision:
        owners = [*(found.metadata.owner_references or ()), owner]
        meta = {"uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version}
        patch = {"metadata": {**meta, "ownerReferences": msgspec.to_builtins(owners)}}
        return await self._client.patch(ControllerRevision, ref_of(found), patch)

    async def renumber(self, found: ControllerRevision, number: int) -> ControllerRevision:
        """Gives a revision another number."""
        patch = {"metadata": {"uid": found.metadata.uid}, "revision": number}
        return await self._client.patch(ControllerRevision, ref_of(found), patch)

    async def relabel(self, found: ControllerRevision, labels: Mapping[str, str]) -> ControllerRevision:
        """Puts labels on a revision."""
        patch = {"metadata": {"uid": found.metadata.uid, "labels": dict(labels)}}
        return await self._client.patch(ControllerRevision, ref_of(found), patch)

    async def create(self, at: Ref, parent: Parent, number: int, label: str) -> tuple[ControllerRevision, int]:
        """A new revision of the parent's template, and how many strangers had its names. ``label`` holds its hash. One that
        is there already is as good as a new one. Raises NoNameError.
        """
        path = f"/tenants/{quote(at.tenant)}/apis/apps/v1/namespaces/{quote(at.namespace)}/controllerrevisions"
        for collisions in range(parent.collisions, parent.collisions + COLLISIONS):
            mark = pure.hash_of(parent.template, collisions)
            ref = Ref(at.tenant, at.namespace, pure.name_of(parent.owner.name, mark))
            try:
                await self._client.raw("POST", path, pure.body_of(parent, mark, number, {label: mark}))
            except ApiError as error:
                if not error.is_already_exists:
                    raise
            found = await find(self._client, ControllerRevision, ref)
            if found is not None and _is_own(found, parent) and pure.is_of(found, parent.template):
                return found, collisions
        raise NoNameError(f"no name is free for a revision of {parent.owner.kind} {parent.owner.name}")

    async def remove(self, revisions: Iterable[ControllerRevision]) -> None:
        """Deletes revisions; one that is gone is fine."""
        for found in revisions:
            try:
                await self._client.delete(ControllerRevision, ref_of(found), uid=found.metadata.uid)
            except ApiError as error:
                if not error.is_not_found:
                    raise


def _is_free(found: ControllerRevision) -> bool:
    return found.metadata.deletion_timestamp is None


def _is_own(found: ControllerRevision, parent: Parent) -> bool:
    holder = controller_of(found)
    return holder is not None and holder.uid == parent.owner.uid
