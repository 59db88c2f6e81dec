"""Pods as a controller makes, takes, lets go and deletes them, on a cache's word.

What was written for an owner is waited for in the cache before anything is decided again (``is_shown``), so that a late cache
makes no pod too many.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import msgspec

from polder.api.errors import ApiError
from polder.api.meta import Object, OwnerReference, ref_of
from polder.api.podfacts import ControlledPod
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.informer import Informer
from polder.controllers.batch import each
from polder.controllers.disruption import controller_of
from polder.controllers.replicas_pure import is_active

BEHIND = 0.2
"""Seconds after which a cache that is behind is looked at again, beside the change that it waits for."""
FIRST_BATCH = 1
TERMINATING = "NamespaceTerminating"


def is_ending(error: ApiError) -> bool:
    """Whether something was refused because its namespace is in deletion."""
    return any(c.get("reason") == TERMINATING for c in error.details.get("causes") or ())


@dataclass(slots=True)
class _Written:
    """What the cache must show before the owner is looked at again: a revision, and pods that are going."""

    revision: int = 0
    deleted: set[str] = field(default_factory=set)


class PodControl:
    """Writes pods for the owners of one kind. All methods raise ApiError but where it is said."""

    def __init__(self, client: Client, pods: Informer[ControlledPod]) -> None:
        self._client = client
        self._pods = pods
        self._written: dict[Ref, _Written] = {}

    def beside(self, owner: Ref) -> list[ControlledPod]:
        """The pods of the owner's namespace, as the cache has them."""
        return self._pods.by_index("namespace", Ref(owner.tenant, owner.namespace, ""))

    def is_shown(self, owner: Ref) -> bool:
        """Whether the cache shows what was written for the owner."""
        written = self._written.get(owner)
        if written is None:
            return True
        if self._pods.position < written.revision:
            return False
        going = (self._pods.by_index("uid", uid) for uid in written.deleted)
        if any(pod.metadata.deletion_timestamp is None for found in going for pod in found):
            return False
        del self._written[owner]
        return True

    def forget(self, owner: Ref) -> None:
        """The owner is gone."""
        self._written.pop(owner, None)

    async def claim(self, at: Ref, owner: OwnerReference, fits: Callable[[ControlledPod], bool]) -> list[ControlledPod]:
        """The owner's pods; takes those that fit and nobody owns, and lets go those that no longer fit."""
        own = []
        for pod in self.beside(at):
            holder = controller_of(pod)
            if holder is not None and holder.uid == owner.uid:
                if fits(pod):
                    own.append(pod)
                else:
                    await self.release(at, pod, owner.uid)
            elif holder is None and is_active(pod) and fits(pod):
                await self.adopt(at, pod, owner)
                own.append(pod)
        return own

    async def create(self, owner: Ref, body: bytes) -> Object:
        """Makes a pod of a body in JSON."""
        path = f"/tenants/{quote(owner.tenant)}/api/v1/namespaces/{quote(owner.namespace)}/pods"
        made = msgspec.json.decode(await self._client.raw("POST", path, body), type=Object)
        self._wrote(owner, made)
        return made

    async def delete(self, owner: Ref, pod: ControlledPod) -> None:
        """Deletes exactly that pod; one that is gone is fine."""
        try:
            await self._client.delete(ControlledPod, ref_of(pod), uid=pod.metadata.uid)
        except ApiError as refused:
            if not (refused.is_not_found or refused.is_conflict):
                raise
        self._written.setdefault(owner, _Written()).deleted.add(pod.metadata.uid)

    async def adopt(self, owner: Ref, pod: ControlledPod, reference: OwnerReference) -> None:
        """Makes the owner the pod's."""
        await self._own(owner, pod, [*(pod.metadata.owner_references or ()), reference])

    async def release(self, owner: Ref, pod: ControlledPod, uid: str) -> None:
        """Makes the owner of that UID the pod's no more."""
        await self._own(owner, pod, [o for o in pod.metadata.owner_references or () if o.uid != uid])

    async def relabel(self, owner: Ref, pod: ControlledPod, labels: dict[str, str]) -> None:
        """Puts labels on a pod."""
        await self._patch(owner, pod, {"uid": pod.metadata.uid, "labels": labels})

    async def _own(self, owner: Ref, pod: ControlledPod, owners: Iterable[OwnerReference]) -> None:
        meta = {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version}
        await self._patch(owner, pod, {**meta, "ownerReferences": msgspec.to_builtins(list(owners)) or None})

    async def _patch(self, owner: Ref, pod: ControlledPod, meta: dict[str, object]) -> None:
        try:
            changed = await self._client.patch(ControlledPod, ref_of(pod), {"metadata": meta})
        except ApiError as error:
            if error.is_not_found:
                return
            raise
        self._wrote(owner, changed)

    def _wrote(self, owner: Ref, made: Object) -> None:
        version = made.metadata.resource_version
        written = self._written.setdefault(owner, _Written())
        written.revision = max(written.revision, int(version) if version.isdigit() else 0)


async def in_batches(make: Sequence[Callable[[], Awaitable[None]]]) -> list[ApiError]:
    """Makes things in batches that double while all goes well, so that what is refused is refused a few times only. The
    refusals; none where the namespace is ending.
    """
    size, at = FIRST_BATCH, 0
    while at < len(make):
        problems: list[ApiError] = []

        async def one(work: Callable[[], Awaitable[None]], problems: list[ApiError] = problems) -> None:
            try:
                await work()
            except ApiError as refused:
                problems.append(refused)

        await each([one(work) for work in make[at : at + size]])
        if problems:
            return [] if any(is_ending(problem) for problem in problems) else problems
        at, size = at + size, size * 2
    return []
