"""One of several leads: a Lease decides, judged by the observer's own clock.

Who finds the Lease unchanged for its whole duration, on its own monotonic clock, takes it by compare-and-swap; so no two
machines' clocks need to agree. A leader that could not renew for ``renew_within`` seconds, counted from before its last
successful request, stops its work; the rest of the Lease's duration is the time that its work has to end. If it does not end
in that time the process must, since another may begin.
Source: coordination.k8s.io/v1; the roles of the durations as in client-go's leader election.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn

from polder.api.discovery import Lease, LeaseSpec
from polder.api.errors import ApiError
from polder.api.meta import ObjectMeta
from polder.base.clock import Clock, micro_stamp
from polder.base.errors import PolderError
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.errors import UnreachableError

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]


class LeadershipError(PolderError):
    """The work of a leader did not end in time after leadership was lost: the process has to."""


@dataclass(frozen=True, slots=True)
class LeaderSettings:
    """``name`` is the Lease in root's kube-system, ``identity`` this process. Times in seconds: an observer waits ``duration``
    before it takes over, a leader renews every ``retry`` and stops after ``renew_within`` without success.
    """

    name: str
    identity: str
    duration: int = 15
    renew_within: float = 10.0
    retry: float = 2.0


@dataclass(slots=True)
class _Seen:
    """What was last read of the Lease, and when it was first read so, on our clock."""

    version: str = ""
    at: float = 0.0


class Leader:
    """Takes part in one election."""

    def __init__(self, client: Client, settings: LeaderSettings, clock: Clock) -> None:
        self._client = client
        self._settings = settings
        self._clock = clock
        self._seen = _Seen()
        self.leading = False

    async def run(self, work: Work) -> NoReturn:
        """Does the work whenever this process leads, for ever. What the work raises is raised; so is LeadershipError."""
        while True:
            lease = await self._acquire()
            log.info("%s leads %s", self._settings.identity, self._settings.name)
            await self._lead(lease, work)

    async def _acquire(self) -> Lease:
        """Waits until the Lease is ours."""
        while True:
            try:
                found = await self._try()
            except (ApiError, UnreachableError) as error:
                log.debug("election for %s: %s", self._settings.name, error)
                found = None
            if found is not None:
                return found
            await asyncio.sleep(self._settings.retry * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load

    @property
    def _ref(self) -> Ref:
        return Ref(ROOT, "kube-system", self._settings.name)

    async def _try(self) -> Lease | None:
        """One look; the Lease if it could be taken. Raises ApiError, UnreachableError."""
        settings = self._settings
        try:
            lease = await self._client.get(Lease, self._ref)
        except ApiError as error:
            if not error.is_not_found:
                raise
            meta = ObjectMeta(name=settings.name, namespace="kube-system")
            return await self._client.create(ROOT, Lease(metadata=meta, spec=self._spec(0)))
        now = self._clock.monotonic()
        if lease.metadata.resource_version != self._seen.version:
            self._seen = _Seen(lease.metadata.resource_version, now)
        holder = lease.spec.holder_identity
        expires = self._seen.at + max(lease.spec.lease_duration_seconds or 0, settings.duration)
        if holder and holder != settings.identity and now < expires:
            return None
        return await self._client.update(ROOT, _with(lease, self._spec((lease.spec.lease_transitions or 0) + 1)))

    def _spec(self, transitions: int) -> LeaseSpec:
        now = micro_stamp(self._clock.now())
        settings = self._settings
        return LeaseSpec(
            holder_identity=settings.identity,
            lease_duration_seconds=settings.duration,
            acquire_time=now,
            renew_time=now,
            lease_transitions=transitions,
        )

    async def _lead(self, lease: Lease, work: Work) -> None:
        """Works and renews until the Lease is lost, which is when this returns; the work has ended by then."""
        self.leading = True
        doing = asyncio.ensure_future(work())
        keeping = asyncio.ensure_future(self._keep(lease))
        try:
            await asyncio.wait({doing, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
                raise LeadershipError(f"the work of {self._settings.name} ended by itself")
            log.warning("%s does not lead %s any more", self._settings.identity, self._settings.name)
            await self._stop(doing)
        except asyncio.CancelledError:
            keeping.cancel()
            await self._stop(doing)
            await asyncio.gather(keeping, return_exceptions=True)
            await self._release()
            raise
        finally:
            self.leading = False
            keeping.cancel()

    async def _stop(self, doing: asyncio.Future[None]) -> None:
        """Ends the work before another server may begin. Raises LeadershipError where it does not end."""
        margin = self._settings.duration - self._settings.renew_within
        doing.cancel()
        await asyncio.wait({doing}, timeout=margin * 0.8)
        if not doing.done():
            raise LeadershipError(f"the work of {self._settings.name} does not end, and another server may begin it")
        if not doing.cancelled() and (problem := doing.exception()) is not None:
            log.warning("the work of %s ended with %r", self._settings.name, problem)

    async def _keep(self, lease: Lease) -> None:
        """Renews; returns when the Lease is lost or could not be renewed in time."""
        settings = self._settings
        good_until = self._clock.monotonic() + settings.renew_within
        while True:
            await asyncio.sleep(min(settings.retry, max(0.0, good_until - self._clock.monotonic())))
            began = self._clock.monotonic()
            if began >= good_until:
                return
            try:
                async with asyncio.timeout(good_until - began):
                    lease = await self._renew(lease)
                good_until = began + settings.renew_within
            except (ApiError, UnreachableError, TimeoutError) as error:
                log.warning("%s could not renew %s: %s", settings.identity, settings.name, error)
                if isinstance(error, ApiError) and (error.is_conflict or error.is_not_found):
                    found = await self._mine()
                    if found is None:
                        return
                    lease = found

    async def _renew(self, lease: Lease) -> Lease:
        spec = LeaseSpec(
            holder_identity=self._settings.identity,
            lease_duration_seconds=self._settings.duration,
            acquire_time=lease.spec.acquire_time,
            renew_time=micro_stamp(self._clock.now()),
            lease_transitions=lease.spec.lease_transitions,
        )
        return await self._client.update(ROOT, _with(lease, spec))

    async def _mine(self) -> Lease | None:
        """The Lease as it stands, if it is still ours: an answer to our own renewal may have been lost."""
        try:
            lease = await self._client.get(Lease, self._ref)
        except (ApiError, UnreachableError):
            return None
        return lease if lease.spec.holder_identity == self._settings.identity else None

    async def _release(self) -> None:
        """Lets another lead at once; the work has ended. Best effort: otherwise the Lease's duration does it."""
        lease = await self._mine()
        if lease is None:
            return
        spec = LeaseSpec(holder_identity="", lease_duration_seconds=1, lease_transitions=lease.spec.lease_transitions)
        try:
            await self._client.update(ROOT, _with(lease, spec))
        except (ApiError, UnreachableError) as error:
            log.debug("%s was not released: %s", self._settings.name, error)


def _with(lease: Lease, spec: LeaseSpec) -> Lease:
    return Lease(metadata=lease.metadata, spec=spec)
