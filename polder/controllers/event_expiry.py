"""Events are kept for an hour: old ones are looked for every few minutes, so that no cache holds them."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from polder.api.core import Event
from polder.api.errors import ApiError
from polder.api.meta import ref_of
from polder.base.clock import Clock
from polder.base.errors import PolderError
from polder.client.client import Client
from polder.controllers.batch import each
from polder.controllers.settings import ControllerSettings

log = logging.getLogger(__name__)

BATCH = 200
"""Deletions between two breaths."""


def last_seen(event: Event) -> datetime | None:
    """When the event happened last; None if it says nothing that can be read."""
    text = event.last_timestamp or event.event_time or event.first_timestamp or event.metadata.creation_timestamp
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


class EventExpiry:
    """Deletes old Events of all tenants."""

    def __init__(self, client: Client, clock: Clock, settings: ControllerSettings) -> None:
        self._client = client
        self._clock = clock
        self._settings = settings

    async def run(self) -> None:
        """Looks every ``event_period`` seconds until cancelled."""
        while True:
            try:
                await self.expire()
            except PolderError as error:
                log.info("old events were not deleted, next try in %g s: %s", self._settings.event_period, error)
            await asyncio.sleep(self._settings.event_period)

    async def expire(self) -> int:
        """One look; how many were deleted. Raises ApiError, UnreachableError."""
        before = self._clock.now() - timedelta(seconds=self._settings.event_lifetime)
        listed = await self._client.list(Event)
        old = [e for e in listed.items if (at := last_seen(e)) is not None and at < before]
        for start in range(0, len(old), BATCH):
            await each([self._delete(event) for event in old[start : start + BATCH]])
        return len(old)

    async def _delete(self, event: Event) -> None:
        """Only as it was seen: an event that was counted on meanwhile is not old."""
        meta = event.metadata
        try:
            await self._client.delete(Event, ref_of(event), uid=meta.uid, resource_version=meta.resource_version)
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise
