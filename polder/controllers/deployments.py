"""Deployments: one ReplicaSet per template, sizes moved from the old ones to the new one. Follows upstream's deployment
controller. Sets are read from the server, so a late cache decides nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

import msgspec
import orjson

from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.labelselector import matcher_of
from polder.api.meta import TENANT_ANNOTATION, OwnerReference, ref_of
from polder.api.podfacts import ControlledPod
from polder.api.workloads import Deployment, DeploymentStatus, ReplicaSet, WorkloadCondition
from polder.base.clock import Clock
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.controllers import deployments_pure as pure
from polder.controllers.deployments_pure import Rollout
from polder.controllers.disruption import controller_of
from polder.controllers.podcontrol import is_ending
from polder.controllers.reading import find

DEPLOYMENTS = kind_of(Deployment)
ENDED = ("Succeeded", "Failed")


class DeploymentController:
    """Reconciles a Deployment; key: its reference."""

    def __init__(
        self, client: Client, pods: Informer[ControlledPod], clock: Clock, recorder: Recorder | None = None
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._pods = pods
        self._clock = clock

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. The seconds until progress is late, None if it is not measured. Raises ApiError."""
        deployment = await find(self._client, Deployment, ref)
        if deployment is None:
            return None
        selector = msgspec.to_builtins(deployment.spec.selector) if deployment.spec.selector is not None else None
        if not selector:
            return None  # it would select all pods
        rollout = pure.rollout_of(deployment, await self._sets(ref, deployment, selector))
        if deployment.metadata.deletion_timestamp is not None:
            return await self._say(rollout, pure.status_of(rollout, self._clock.now()))
        told = pure.paused_condition(deployment)
        if told is not None:
            rollout = self._told(rollout, told)
        if deployment.spec.paused or pure.is_scaled(rollout):
            rollout = await self._numbered(rollout)
            rollout = await self._resize(rollout, pure.scaled_sizes(rollout))
            if deployment.spec.paused:
                await self._clean(rollout)
            return await self._say(rollout, pure.status_of(rollout, self._clock.now()))
        if deployment.spec.strategy.type == "Recreate":
            return await self._recreate(rollout)
        return await self._roll(rollout)

    async def _roll(self, rollout: Rollout) -> float | None:
        rollout = await self._with_new(rollout)
        if rollout.new is None:
            return await self._progress(rollout)
        size = pure.new_size(rollout, rollout.new.spec.replicas)
        if size != rollout.new.spec.replicas:
            rollout = await self._resize(rollout, {rollout.new.metadata.name: size})
            return await self._progress(rollout)
        sizes = pure.old_cuts(rollout)
        if sizes:
            rollout = await self._resize(rollout, sizes)
        elif pure.is_complete(rollout.deployment, rollout.deployment.status):
            await self._clean(rollout)
        return await self._progress(rollout)

    async def _recreate(self, rollout: Rollout) -> float | None:
        active = {s.metadata.name: 0 for s in rollout.old if s.spec.replicas}
        if active:
            return await self._progress(await self._resize(await self._numbered(rollout), active))
        if self._old_pods(rollout):
            return await self._progress(await self._numbered(rollout))
        rollout = await self._with_new(rollout)
        if rollout.new is not None:
            rollout = await self._resize(rollout, {rollout.new.metadata.name: rollout.wanted})
        if pure.is_complete(rollout.deployment, rollout.deployment.status):
            await self._clean(rollout)
        return await self._progress(rollout)

    def _old_pods(self, rollout: Rollout) -> bool:
        """Whether pods of another template may still run."""
        if any(s.status.replicas for s in rollout.old):
            return True
        at, old = ref_of(rollout.deployment), {s.metadata.uid for s in rollout.old}
        pods = self._pods.by_index("namespace", Ref(at.tenant, at.namespace, ""))
        owners = ((controller_of(pod), pod.status.phase) for pod in pods)
        return any(owner is not None and owner.uid in old and phase not in ENDED for owner, phase in owners)

    def _told(self, rollout: Rollout, told: WorkloadCondition) -> Rollout:
        status = rollout.deployment.status
        conditions = pure.with_condition(status.conditions, told, self._clock.now())
        changed = msgspec.structs.replace(status, conditions=conditions)
        return replace(rollout, deployment=msgspec.structs.replace(rollout.deployment, status=changed))

    async def _sets(self, ref: Ref, deployment: Deployment, selector: Mapping[str, object]) -> list[ReplicaSet]:
        """The Deployment's ReplicaSets; takes those that nobody owns and lets go those that no longer fit."""
        fits, own, going = matcher_of(selector), [], deployment.metadata.deletion_timestamp is not None
        for found in (await self._client.list(ReplicaSet, ref.tenant, ref.namespace)).items:
            owner, matches = controller_of(found), fits.matches_labels(found.metadata.labels or {})
            if owner is not None and owner.uid == deployment.metadata.uid:
                if matches or going:
                    own.append(found)
                else:
                    await self._own(found, [o for o in found.metadata.owner_references or () if o.uid != owner.uid])
            elif owner is None and matches and not going and found.metadata.deletion_timestamp is None:
                own.append(await self._own(found, [*(found.metadata.owner_references or ()), _owner(deployment)]))
        return own

    async def _own(self, found: ReplicaSet, owners: Iterable[OwnerReference]) -> ReplicaSet:
        meta = {"uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version}
        patch = {"metadata": {**meta, "ownerReferences": msgspec.to_builtins(list(owners)) or None}}
        return await self._client.patch(ReplicaSet, ref_of(found), patch)

    async def _with_new(self, rollout: Rollout) -> Rollout:
        """Makes the set of the Deployment's template if it is missing."""
        if rollout.new is not None:
            return await self._numbered(rollout)
        at = ref_of(rollout.deployment)
        name, body = pure.new_set(rollout, msgspec.to_builtins(_owner(rollout.deployment)))
        path = f"/tenants/{quote(at.tenant)}/apis/apps/v1/namespaces/{quote(at.namespace)}/replicasets"
        try:
            await self._client.raw("POST", path, orjson.dumps(body))
        except ApiError as error:
            if error.is_already_exists:
                return await self._collided(rollout, name, error)
            if is_ending(error):
                return rollout
            await self._refused(rollout, f'Failed to create new replica set "{name}": {error}')
            raise
        made = await self._client.get(ReplicaSet, Ref(at.tenant, at.namespace, name))
        self._note(rollout, name, 0, made.spec.replicas)
        told = WorkloadCondition(
            type=pure.PROGRESSING, status="True", reason="NewReplicaSetCreated",
            message=f'Created new replica set "{name}"',
        )  # fmt: skip
        if pure.has_deadline(rollout.deployment):
            rollout = self._told(rollout, told)
        return await self._numbered(replace(rollout, new=made))

    async def _collided(self, rollout: Rollout, name: str, error: ApiError) -> Rollout:
        """Another set has the name: ours, seen late, or a stranger, which counts as a collision. Raises ApiError."""
        at = ref_of(rollout.deployment)
        found = await find(self._client, ReplicaSet, Ref(at.tenant, at.namespace, name))
        owner = controller_of(found) if found is not None else None
        template = pure.plain(rollout.deployment.spec.template)
        ours = owner is not None and owner.uid == rollout.deployment.metadata.uid
        if found is not None and ours and pure.plain(found.spec.template) == template:
            return replace(rollout, new=found)
        count = (rollout.deployment.status.collision_count or 0) + 1
        meta = {"uid": rollout.deployment.metadata.uid}
        patch = {"metadata": meta, "status": {"collisionCount": count}}
        await self._client.patch(Deployment, at, patch, subresource="status")
        raise error

    async def _refused(self, rollout: Rollout, message: str) -> None:
        if pure.has_deadline(rollout.deployment):
            told = WorkloadCondition(
                type=pure.PROGRESSING, status="False", reason="ReplicaSetCreateError", message=message
            )
            rollout = self._told(rollout, told)
            await self._say(rollout, pure.status_of(rollout, self._clock.now()))

    async def _numbered(self, rollout: Rollout) -> Rollout:
        """Revision and annotations of the new set."""
        new, deployment = rollout.new, rollout.deployment
        if new is None:
            return rollout
        have = {k: v for k, v in (new.metadata.annotations or {}).items() if k != TENANT_ANNOTATION}
        wanted = pure.set_annotations(rollout, have, pure.next_revision(rollout))
        minimum = deployment.spec.min_ready_seconds
        if wanted != have or new.spec.min_ready_seconds != minimum:
            patch = {
                "metadata": {"uid": new.metadata.uid, "annotations": wanted},
                "spec": {"minReadySeconds": minimum},
            }
            new = await self._client.patch(ReplicaSet, ref_of(new), patch)
        return replace(rollout, new=new)

    async def _resize(self, rollout: Rollout, sizes: Mapping[str, int]) -> Rollout:
        changed: dict[str, ReplicaSet] = {}
        for found in rollout.sets:
            size = sizes.get(found.metadata.name)
            if size is None:
                continue
            told, have = pure.size_annotations(rollout), found.metadata.annotations or {}
            if size == found.spec.replicas and all(have.get(name) == value for name, value in told.items()):
                continue
            meta = {"uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version, "annotations": told}
            patch = {"metadata": meta, "spec": {"replicas": size}}
            changed[found.metadata.name] = await self._client.patch(ReplicaSet, ref_of(found), patch)
            self._note(rollout, found.metadata.name, found.spec.replicas, size)
        new = rollout.new
        return replace(
            rollout,
            new=changed.get(new.metadata.name, new) if new is not None else None,
            old=tuple(changed.get(s.metadata.name, s) for s in rollout.old),
        )

    def _note(self, rollout: Rollout, name: str, before: int, size: int) -> None:
        if self._recorder is not None and size != before:
            how = "up" if size > before else "down"
            words = f"Scaled {how} replica set {name} from {before} to {size}"
            self._recorder.event(rollout.deployment, "Normal", "ScalingReplicaSet", words)

    async def _clean(self, rollout: Rollout) -> None:
        """Deletes sets beyond the history that is kept."""
        limit = rollout.deployment.spec.revision_history_limit
        if limit is None:
            return
        alive = [s for s in rollout.old if s.metadata.deletion_timestamp is None]
        for found in _oldest(alive)[: max(0, len(alive) - limit)]:
            settled = found.metadata.generation <= found.status.observed_generation
            if found.status.replicas or found.spec.replicas or not settled:
                continue
            try:
                await self._client.delete(ReplicaSet, ref_of(found), uid=found.metadata.uid)
            except ApiError as error:
                if not error.is_not_found:
                    raise

    async def _progress(self, rollout: Rollout) -> float | None:
        now = self._clock.now()
        return await self._say(rollout, pure.judge(rollout, pure.status_of(rollout, now), now))

    async def _say(self, rollout: Rollout, status: DeploymentStatus) -> float | None:
        """Writes the status; the seconds until progress is late."""
        deployment = rollout.deployment
        known = await find(self._client, Deployment, ref_of(deployment))
        if known is None or known.metadata.uid != deployment.metadata.uid:
            return None
        # A write of the status may tell the revision: one of the object itself would count as a change of what is wanted.
        revision = (rollout.new.metadata.annotations or {}).get(pure.REVISION, "") if rollout.new is not None else ""
        news = revision and (known.metadata.annotations or {}).get(pure.REVISION) != revision
        if known.status != status or news:
            numbers = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")
            wanted = {**dict.fromkeys(numbers, 0), "conditions": None, **msgspec.to_builtins(status)}
            meta = {"uid": deployment.metadata.uid, **({"annotations": {pure.REVISION: revision}} if revision else {})}
            await self._client.patch(
                Deployment, ref_of(deployment), {"metadata": meta, "status": wanted}, subresource="status"
            )
        left = pure.time_left(deployment, status.conditions or (), self._clock.now())
        return max(1.0, left + 1.0) if left is not None else None


def _oldest(sets: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    return sorted(sets, key=lambda s: (pure.annotation(s, pure.REVISION) or 0, s.metadata.creation_timestamp or ""))


def _owner(deployment: Deployment) -> OwnerReference:
    return OwnerReference(
        api_version=DEPLOYMENTS.api_version,
        kind=DEPLOYMENTS.kind,
        name=deployment.metadata.name,
        uid=deployment.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )
