"""Which change concerns which set of pods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polder.api.meta import Object, ref_of
from polder.api.podfacts import ControlledPod
from polder.api.workloads import ReplicaSet, ReplicationController
from polder.base.ref import Ref
from polder.client.informer import Informer
from polder.controllers.caches import Caches, namespace_of
from polder.controllers.disruption import controller_of
from polder.controllers.replicas_pure import set_of
from polder.controllers.runners import Runners
from polder.loop.runner import Runner

_OWNERS = {"ReplicaSet": "apps/v1", "ReplicationController": "v1"}


class WorkloadWiring:
    """Turns changes of caches into sets to look at."""

    def __init__(self, caches: Caches, runners: Runners) -> None:
        self._caches = caches
        self._runners = runners
        self._queues: dict[str, tuple[Informer[Any], Runner[Ref]]] = {
            "ReplicaSet": (caches.sets, runners.sets),
            "ReplicationController": (caches.controllers, runners.controllers),
        }

    def attach(self) -> None:
        """Hears every change from here on, and of every object that is known already."""
        self._caches.sets.on_change(_adds(self._runners.sets))
        self._caches.controllers.on_change(_adds(self._runners.controllers))
        self._caches.deployments.on_change(_adds(self._runners.deployments))
        self._caches.sets.on_change(self._set)
        self._caches.pods.on_change(self._pod)

    def _set(self, ref: Ref, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        owners = {owner.uid: owner for found in (old, new) if found and (owner := controller_of(found))}
        for owner in owners.values():
            if owner.kind == "Deployment":
                self._runners.deployments.add(Ref(ref.tenant, ref.namespace, owner.name))
        if new is not None and controller_of(new) is None:
            for deployment in self._caches.deployments.by_index("namespace", namespace_of(new)):
                self._runners.deployments.add(ref_of(deployment))

    def _pod(self, ref: Ref, old: ControlledPod | None, new: ControlledPod | None) -> None:
        owners = {owner.uid: owner for pod in (old, new) if pod and (owner := controller_of(pod))}
        for owner in owners.values():
            if _OWNERS.get(owner.kind) == owner.api_version:
                at = Ref(ref.tenant, ref.namespace, owner.name)
                self._queues[owner.kind][1].add(at)
                if new is None:
                    self._recreated(at)
        if new is not None and controller_of(new) is None:
            self._orphan(new)

    def _recreated(self, at: Ref) -> None:
        """A pod went: a Deployment that replaces all at once may wait for it."""
        found = self._caches.sets.get(at)
        owner = controller_of(found) if found is not None else None
        if owner is not None and owner.kind == "Deployment":
            self._runners.deployments.add(Ref(at.tenant, at.namespace, owner.name))

    def _orphan(self, pod: ControlledPod) -> None:
        """A pod that nobody owns may be somebody's."""
        for kind, (known, queue) in self._queues.items():
            for found in known.by_index("namespace", namespace_of(pod)):
                if _selects(found, kind, pod):
                    queue.add(ref_of(found))


def _selects(found: ReplicaSet | ReplicationController, kind: str, pod: ControlledPod) -> bool:
    return set_of(found, "", kind).selector.matches_labels(pod.metadata.labels or {})


def _adds(runner: Runner[Ref]) -> Callable[[Ref, Object | None, Object | None], None]:
    def changed(ref: Ref, _old: Object | None, _new: Object | None) -> None:
        runner.add(ref)

    return changed
