"""Audit events of requests (``audit.k8s.io/v1``): who asked what of which tenant, and what came of it.

What a tenant is asked stands in the tenant's own file, with the platform's administrators visible as what they are;
what never got into a tenant stands in root's. Bodies of Secrets, tokens and reviews of tokens are never written,
whatever a policy says.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import orjson
from aiohttp import web

from polder.api.errors import ApiError
from polder.api.meta import Raw
from polder.apiserver import protobuf
from polder.apiserver.audit_policy import API_VERSION, AuditPolicy, Level, Verdict, verdict
from polder.apiserver.body import AUDITED, media_type
from polder.apiserver.types import Connection, Decision, Identity, RequestInfo, user_info
from polder.base.clock import Clock
from polder.base.ids import EVERY_TENANT, ROOT

BODY_LIMIT: Final = 100 * 1024
"""Bytes of a request's and of a response's body together; longer ones are left out, and the event says so."""
_PROTOBUF_LIMIT: Final = 8 * 1024
"""Likewise of a body in protobuf, which takes far longer to read: a few milliseconds at most."""
_TEXT_LIMIT: Final = 2048
_SECRET: Final = frozenset({"secrets", "serviceaccounts/token", "tokenreviews.authentication.k8s.io"})


NOTES: Final = web.RequestKey("polder.audit.notes", dict)
"""Key of a request under which admission leaves annotations of its event."""


def notes_of(request: web.BaseRequest) -> dict[str, str]:
    """Where annotations for a request's event are left; nowhere if none is written."""
    found: dict[str, str] = request.get(NOTES, {})
    return found


class Sink(Protocol):
    """Where events go."""

    def put(self, tenant: str, line: bytes) -> None:
        """Takes one line. Never waits."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as its audit begins: when it came, its id, who asks (in whose name: ``impersonator``), and what."""

    request: web.BaseRequest
    connection: Connection
    id: str
    at: datetime
    who: Identity
    what: RequestInfo


class Auditor:
    """Writes events as a policy says."""

    def __init__(self, policy: AuditPolicy, sink: Sink, clock: Clock) -> None:
        self.policy = policy
        self._sink = sink
        self._clock = clock

    def now(self) -> datetime:
        """The time that events are stamped with."""
        return self._clock.now()

    def begin(self, asked: Asked) -> Verdict:
        """Looks how much of a request is to be written, and notes that it came."""
        found = verdict(self.policy, asked.who.impersonator or asked.who, asked.what)
        if found.level is Level.NONE:
            return found
        asked.request[NOTES] = {}
        if _name(asked.what) in _SECRET:
            found = Verdict(min(found.level, Level.METADATA), found.omitted, found.managed_fields)
        if found.level >= Level.REQUEST:
            asked.request[AUDITED] = b""
        self._stage(asked, found, "RequestReceived")
        return found

    def started(self, asked: Asked, how: Verdict) -> None:
        """Notes that a long answer began."""
        self._stage(asked, how, "ResponseStarted", 200)

    def done(self, asked: Asked, how: Verdict, response: web.StreamResponse, decision: Decision | None) -> None:
        """Notes what came of it; without a decision nobody got so far as to ask for one, or it was a refusal."""
        annotations = {}
        if decision is not None:
            annotations = {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": decision.reason}
        elif response.status == 403:
            annotations = {"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""}
        self._stage(asked, how, "ResponseComplete", response.status, (response, annotations))

    def _stage(
        self, asked: Asked, how: Verdict, stage: str, code: int = 0,
        end: tuple[web.StreamResponse, dict[str, str]] | None = None,
    ) -> None:  # fmt: skip
        if how.level is Level.NONE or stage in how.omitted:
            return
        event = self._event(asked, how, stage)
        if code:
            event["responseStatus"] = {"metadata": {}, "code": code}
        if end is not None:
            event["annotations"].update(end[1] | notes_of(asked.request))
            _describe(event, end[0])
            _bodies(event, asked, how, end[0])
        tenant = asked.what.tenant if asked.what.tenant != EVERY_TENANT else ROOT
        self._sink.put(tenant, orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))

    def _event(self, asked: Asked, how: Verdict, stage: str) -> Raw:
        request, who, what = asked.request, asked.who, asked.what
        event: Raw = {
            "kind": "Event",
            "apiVersion": API_VERSION,
            "level": how.level.word,
            "auditID": asked.id,
            "stage": stage,
            "requestURI": request.rel_url.raw_path_qs[:_TEXT_LIMIT],
            "verb": what.verb,
            "user": user_info(who.impersonator or who),
        }
        if who.impersonator is not None:
            event["impersonatedUser"] = user_info(who)
        if asked.connection.peer:
            event["sourceIPs"] = [asked.connection.peer]
        event["userAgent"] = request.headers.get("User-Agent", "")[:_TEXT_LIMIT]
        if what.is_resource:
            event["objectRef"] = _reference(what)
        event["requestReceivedTimestamp"] = _micro(asked.at)
        event["stageTimestamp"] = _micro(self._clock.now())
        event["annotations"] = {"polder.dev/tenant": what.tenant}
        return event


def _name(what: RequestInfo) -> str:
    resource = f"{what.resource}.{what.group}" if what.group else what.resource
    return f"{resource}/{what.subresource}" if what.subresource else resource


def _reference(what: RequestInfo) -> Raw:
    parts = {
        "resource": what.resource,
        "namespace": what.namespace,
        "name": what.name,
        "apiGroup": what.group,
        "apiVersion": what.version,
        "subresource": what.subresource,
    }
    return {key: value for key, value in parts.items() if value}


def _micro(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _describe(event: Raw, response: web.StreamResponse) -> None:
    """What a refusal says, which is a Status."""
    body = getattr(response, "body", None)
    if response.status < 400 or not isinstance(body, bytes) or len(body) > BODY_LIMIT:
        return
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        return
    if isinstance(status, dict) and status.get("kind") == "Status":
        found = {key: status[key] for key in ("status", "message", "reason", "details") if key in status}
        event["responseStatus"] = {"metadata": {}, **found, "code": response.status}


def _bodies(event: Raw, asked: Asked, how: Verdict, response: web.StreamResponse) -> None:
    sent = asked.request.get(AUDITED, b"") if how.level >= Level.REQUEST else b""
    said = getattr(response, "body", None) if how.level >= Level.REQUEST_RESPONSE else None
    said = said if isinstance(said, bytes) else b""
    bodies = (
        ("requestObject", sent, media_type(asked.request)),
        ("responseObject", said, response.content_type if said else ""),
    )
    if len(sent) + len(said) > BODY_LIMIT or any(
        media == protobuf.MEDIA and len(body) > _PROTOBUF_LIMIT for _, body, media in bodies
    ):
        event["annotations"]["audit.k8s.io/truncated"] = "true"
        return
    for field, body, media in bodies:
        found = _object(body, media, how.managed_fields)
        if found is not None:
            event[field] = found


def _object(body: bytes, media: str, managed_fields: bool) -> Raw | None:
    try:
        found = (protobuf.decode_body if media == protobuf.MEDIA else orjson.loads)(body) if body else None
    except (orjson.JSONDecodeError, ApiError):
        return None  # YAML: the answer tells what came of it
    if not isinstance(found, dict):
        return None
    if _holds_secrets(found):
        return None
    if not managed_fields:
        for obj in (found, *(i for i in found.get("items") or () if isinstance(i, dict))):
            meta = obj.get("metadata")
            if isinstance(meta, dict):
                meta.pop("managedFields", None)
    return found


def _holds_secrets(found: Raw) -> bool:
    """Whatever the path was: a Secret or a token is not written."""
    return found.get("kind") in {"Secret", "SecretList", "TokenRequest", "TokenReview"}
