"""What the API shows of a node's static pods: a mirror for each, made again when somebody deletes it, with the pod's status."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from polder.api.core import Node, Pod, PodStatus
from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.staticpods import is_static_uid
from polder.base.clock import Clock
from polder.base.errors import PolderError
from polder.base.ids import ROOT, NodeName
from polder.base.ref import Ref
from polder.client import wire
from polder.client.client import Client
from polder.loop.wait import wait_set
from polder.node.pods.cluster import ApiCluster
from polder.node.pods.manifests import StaticPod
from polder.node.pods.nodepods import NodePods, mirrored

log = logging.getLogger(__name__)

SOON: Final = 1.0
RETRY: Final = 5.0
RESYNC: Final = 60.0
"""Seconds until the next look: while a pod ends, when something failed, and when all is well."""


class NodeCluster(ApiCluster):
    """The API as a node's pods need it, where a static pod is its mirror."""

    def __init__(self, client: Client, node: NodeName, clock: Clock, pods: NodePods) -> None:
        super().__init__(client, node, clock)
        self._pods = pods

    async def write_status(self, pod: Pod, status: PodStatus) -> None:
        """As ``ApiCluster``; of a static pod on its mirror, which is waited for."""
        if is_static_uid(pod.metadata.uid):
            while (mirror := self._pods.mirror_of(pod.metadata.uid)) is None:
                await self._pods.news.wait()
            pod = mirror
        await super().write_status(pod, status)

    async def forget(self, pod: Pod) -> None:
        """As ``ApiCluster``; mirrors go when their pods have gone."""
        if not is_static_uid(pod.metadata.uid):
            await super().forget(pod)


class Mirrors:
    """Keeps them."""

    def __init__(self, client: Client, pods: NodePods, node: NodeName) -> None:
        self._client = client
        self._pods = pods
        self._node = node
        self._said = ""

    async def run(self, runs: Callable[[str], bool]) -> None:
        """Until cancelled. ``runs`` tells whether a pod, by UID, is still there: so long its mirror stays."""
        await self._pods.wait_synced()
        while True:
            news = self._pods.news
            try:
                delay = await self.look(runs)
                self._said = ""
            except (PolderError, OSError) as error:
                if str(error) != self._said:
                    log.warning("static pods are not shown in the API: %s", error)
                self._said, delay = str(error), RETRY
            await wait_set(news, delay)

    async def look(self, runs: Callable[[str], bool]) -> float:
        """Deletes wrong mirrors and makes missing ones; seconds until the next look. Raises PolderError, OSError, of several
        failures the last: one does not hold up the others.
        """
        delay, failed = RESYNC, None
        for ref, mirror in list(self._pods.mirrors.items()):
            uid = mirrored(mirror)
            if self._pods.mirror_of(uid) is mirror:
                continue
            if ref not in self._pods.statics and mirror.metadata.deletion_timestamp is None and runs(uid):
                delay = SOON
                continue
            try:
                await self._delete(ref, mirror)
            except (PolderError, OSError) as error:
                failed = error
        for ref, one in list(self._pods.statics.items()):
            if ref not in self._pods.mirrors:
                try:
                    await self._create(one)
                except (PolderError, OSError) as error:
                    failed = error
        if failed is not None:
            raise failed
        return delay

    async def _delete(self, ref: Ref, mirror: Pod) -> None:
        log.info("mirror %s of a static pod goes", ref)
        try:
            await self._client.delete(Pod, ref, uid=mirror.metadata.uid, grace=0)
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise

    async def _create(self, one: StaticPod) -> None:
        node = await self._client.get(Node, Ref(ROOT, "", self._node))
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": node.metadata.uid, "controller": True}
        body = {**one.mirror, "metadata": {**one.mirror["metadata"], "ownerReferences": [owner]}}
        path = wire.collection(kind_of(Pod), ROOT, one.ref.namespace)
        await self._client.raw("POST", path, wire.encode(body))
        log.info("mirror %s shows a static pod", one.ref)
