"""Events as a component reports them: never in the way of its work, never a flood, never about another tenant.

``event`` only notes; ``run`` writes. Equal events become one object with a count (upstream's correlator), a tenant that
causes too many loses the surplus, and an event lives in the tenant of the object that it is about.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from polder.api.core import Event, EventSource, ObjectReference
from polder.api.errors import ApiError
from polder.api.kinds import BY_TYPE
from polder.api.meta import Object, ObjectMeta, ref_of
from polder.base.clock import Clock, stamp
from polder.base.errors import PolderError
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client

log = logging.getLogger(__name__)

REMEMBERED = 4096
"""Event objects that further equal events are counted on."""
WAITING = 4096
"""Distinct notes that may wait to be written; what comes on top is lost, and counted."""
WINDOW = 600.0
"""Seconds after which an equal event becomes a new object."""
BURST = 50.0
"""Writes that a tenant may cause at once."""
REFILL = 1.0
"""Writes per second that a tenant may cause after that."""
LATER = 0.2
"""Seconds after which what was noted is written: what it tells of comes first at the server."""
MESSAGE_LIMIT = 1024
"""Bytes of a message, as upstream admits."""


@dataclass(frozen=True, slots=True)
class Note:
    """What makes two events equal."""

    about: Ref
    reference: ObjectReference
    type: str
    reason: str
    message: str


@dataclass(slots=True)
class _Written:
    """The Event object of a note: its name, how often it happened, and when its window began."""

    name: str
    count: int
    since: float


@dataclass(slots=True)
class _Bucket:
    """A tenant's token bucket."""

    tokens: float
    at: float


class Recorder:
    """Reports events of one component. ``run`` must be running for them to be written."""

    def __init__(self, client: Client, component: str, clock: Clock, host: str = "") -> None:
        self._client = client
        self._source = EventSource(component=component, host=host)
        self._clock = clock
        self._waiting: OrderedDict[Note, int] = OrderedDict()
        self._written: OrderedDict[Note, _Written] = OrderedDict()
        self._buckets: OrderedDict[TenantName, _Bucket] = OrderedDict()
        self._some = asyncio.Event()
        self.lost = 0

    def event(self, obj: Object, type: str, reason: str, message: str, part: str = "") -> None:
        """Notes an event about an object that was read through our client, or about a part of it (``fieldPath``), which
        keeps it apart from equal ones of other parts. ``type``: Normal or Warning.
        """
        about = ref_of(obj)
        text = message.encode()[:MESSAGE_LIMIT].decode(errors="ignore")
        note = Note(about, _reference(obj, about, part), type, reason, text)
        if note not in self._waiting and len(self._waiting) >= WAITING:
            self.lost += 1
            return
        self._waiting[note] = self._waiting.get(note, 0) + 1
        self._some.set()

    async def run(self) -> None:
        """Writes what was noted, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(LATER)
            self._some.clear()
            while self._waiting:
                note, times = self._waiting.popitem(last=False)
                if not self._allowed(note.about.tenant):
                    self.lost += times
                    continue
                try:
                    await self._write(note, times)
                except (PolderError, OSError) as error:
                    # An event is a courtesy: it never holds up or breaks the component (its tenant may be going).
                    self.lost += times
                    log.debug("event about %s was not written: %s", note.about, error)

    def _allowed(self, tenant: TenantName) -> bool:
        now = self._clock.monotonic()
        bucket = self._buckets.pop(tenant, None) or _Bucket(BURST, now)
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.at) * REFILL)
        bucket.at = now
        self._buckets[tenant] = bucket
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    async def _write(self, note: Note, times: int) -> None:
        now = self._clock.monotonic()
        written = self._written.pop(note, None)
        if written is not None and now - written.since < WINDOW and await self._count(note, written, times):
            self._remember(note, written)
            return
        self._remember(note, await self._create(note, times))

    def _remember(self, note: Note, written: _Written) -> None:
        self._written[note] = written
        if len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    async def _count(self, note: Note, written: _Written, times: int) -> bool:
        """Counts on the object that exists; False if it is gone."""
        written.count += times
        patch = {"count": written.count, "lastTimestamp": stamp(self._clock.now())}
        ref = Ref(note.about.tenant, _namespace(note.about), written.name)
        try:
            await self._client.patch(Event, ref, patch)
        except ApiError as error:
            if error.is_not_found:
                return False
            raise
        return True

    async def _create(self, note: Note, times: int) -> _Written:
        now = self._clock.now()
        at = stamp(now)
        name = f"{note.about.name[:220]}.{_serial(now)}"
        event = Event(
            api_version="v1",
            kind="Event",
            metadata=ObjectMeta(name=name, namespace=_namespace(note.about)),
            involved_object=note.reference,
            type=note.type,
            reason=note.reason,
            message=note.message,
            source=self._source,
            first_timestamp=at,
            last_timestamp=at,
            count=times,
            reporting_component=self._source.component,
            reporting_instance=self._source.host,
        )
        await self._client.create(note.about.tenant, event)
        return _Written(name, times, self._clock.monotonic())


def _serial(now: datetime) -> str:
    """Names that sort by time, as upstream's, so that a list has what happened in one second in its order."""
    return f"{round(now.timestamp() * 1_000_000):014x}{uuid4().hex[:4]}"


def _namespace(about: Ref) -> str:
    """Events about cluster-scoped objects live in ``default``, as upstream's."""
    return about.namespace or "default"


def _reference(obj: Object, about: Ref, part: str) -> ObjectReference:
    """The object without its version, which would make equal events differ."""
    known = BY_TYPE.get(type(obj))
    return ObjectReference(
        api_version=known.api_version if known else obj.api_version,
        kind=known.kind if known else obj.kind,
        namespace=about.namespace,
        name=about.name,
        uid=obj.metadata.uid,
        field_path=part,
    )
