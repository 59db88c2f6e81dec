"""Pods that no node will ever remove: bound to a node that is gone, or in deletion and bound to none."""

from __future__ import annotations

from polder.api.core import Pod
from polder.api.errors import ApiError
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.missing import MissingNodes


class PodController:
    """Reconciles pods of all tenants that look lost; key: the pod's reference."""

    def __init__(self, client: Client, missing: MissingNodes) -> None:
        self._client = client
        self._missing = missing

    async def reconcile(self, ref: Ref) -> float | None:
        """Removes the pod at once if it is lost; the seconds until the next look if that is not sure yet."""
        try:
            pod = await self._client.get(Pod, ref)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        if pod.spec.node_name:
            wait = await self._missing.wait(pod.spec.node_name)
            if wait is None or wait > 0:
                return wait
        elif pod.metadata.deletion_timestamp is None:
            return None
        await self._client.delete(Pod, ref, uid=pod.metadata.uid, grace=0)
        return None
