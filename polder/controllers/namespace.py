"""Namespaces in deletion: everything inside goes, then the ``kubernetes`` finalizer, and with it the namespace."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from urllib.parse import quote

import msgspec
import orjson

from polder.api.core import Namespace
from polder.api.errors import ApiError
from polder.api.meta import Condition
from polder.base.clock import stamp
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.conditions import merged
from polder.controllers.drain import FAILURES, conditions, drain, look
from polder.controllers.settings import ControllerSettings

FINALIZER = "kubernetes"
LONGEST_PAUSE: Final = 60.0
"""Seconds between two rounds, of which one may take ``ControllerSettings.drain_round``."""


class NamespaceController:
    """Reconciles namespaces of all tenants; only those in deletion have work."""

    def __init__(self, client: Client, settings: ControllerSettings) -> None:
        self._client = client
        self._settings = settings

    async def reconcile(self, ref: Ref) -> float | None:
        """One step towards the namespace being gone. The seconds until the next look, None when there is nothing left."""
        try:
            namespace = await self._client.get(Namespace, ref)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        if namespace.metadata.deletion_timestamp is None or FINALIZER not in (namespace.spec.finalizers or []):
            return None
        began, clock = self._settings.clock.monotonic(), self._settings.clock
        found = await look(self._client, ref.tenant, ref.name, self._settings.drain_round / 2)
        left = max(began + self._settings.drain_round - clock.monotonic(), 0.0)
        remains = await drain(self._client, ref.tenant, ref.name, found, left)
        if remains or found.failed:
            said = merged(namespace.status.conditions, conditions(found, remains), stamp(clock.now()))
            if said is not None:
                patch = {"status": {"conditions": msgspec.to_builtins(said)}}
                await self._client.patch(Namespace, ref, patch, subresource="status")
            return self._pause(said or namespace.status.conditions or ())
        others = [f for f in namespace.spec.finalizers or [] if f != FINALIZER]
        await finalize(self._client, ref, namespace, others)
        return None

    def _pause(self, said: Sequence[Condition]) -> float:
        """Seconds until the next round: as long again as servers have been failing to answer, so that it is twice as long
        each time.
        """
        now = self._settings.clock.now()
        waited = max((_age(c, now) for c in said if c.type in FAILURES and c.status == "True"), default=0.0)
        return min(max(self._settings.recheck, waited), max(self._settings.recheck, LONGEST_PAUSE))


def _age(condition: Condition, now: datetime) -> float:
    """Seconds since it changed; zero for a time that somebody else wrote and that is none."""
    try:
        return (now - datetime.fromisoformat(condition.last_transition_time or "")).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def is_drained(namespace: Namespace) -> bool:
    """Whether a namespace in deletion is empty: our own finalizer is gone."""
    return namespace.metadata.deletion_timestamp is not None and FINALIZER not in (namespace.spec.finalizers or [])


async def finalize(client: Client, ref: Ref, namespace: Namespace, kept: Sequence[str] = ()) -> None:
    """Leaves these finalizers of the spec, if nobody changed the namespace since it was read. Gone already is well.

    Raises ApiError, a conflict if it was changed.
    """
    meta = namespace.metadata
    body = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": ref.name, "uid": meta.uid, "resourceVersion": meta.resource_version},
        "spec": {"finalizers": list(kept)},
    }
    path = f"/tenants/{quote(ref.tenant)}/api/v1/namespaces/{quote(ref.name)}/finalize"
    try:
        await client.raw("PUT", path, orjson.dumps(body))
    except ApiError as error:
        if not error.is_not_found:
            raise
