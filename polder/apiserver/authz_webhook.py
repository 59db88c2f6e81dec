"""Asking an HTTPS service of the platform's, which answers SubjectAccessReviews (authorization.k8s.io/v1).

What it said is remembered for a while, in a bounded table. The tenant stands in ``spec.extra["polder.dev/tenant"]``.
"""

from __future__ import annotations

import logging
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import orjson

from polder.api.meta import TENANT_ANNOTATION, Raw
from polder.api.rbac import PolicyRule
from polder.apiserver.asker import Asker
from polder.apiserver.types import Decision, RequestInfo
from polder.base.clock import Clock

log = logging.getLogger(__name__)

_REMEMBERED: Final = 4096
_ANSWER_LIMIT: Final = 64 * 1024
Post = Callable[[bytes], Awaitable[bytes]]


class WebhookError(Exception):
    """It gave no answer that could be understood."""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Times in seconds. ``fail_closed`` makes an unreachable service an express refusal rather than no opinion."""

    url: str
    context: ssl.SSLContext | None = None
    timeout: float = 3.0
    allowed_for: float = 300.0
    refused_for: float = 30.0
    fail_closed: bool = False


@dataclass(slots=True)
class Webhook:
    """The authorizer."""

    settings: WebhookSettings
    clock: Clock
    _session: aiohttp.ClientSession | None = None
    _said: OrderedDict[bytes, tuple[float, Decision]] = field(default_factory=OrderedDict)

    async def decide(self, asker: Asker, what: RequestInfo) -> Decision:
        """See ``authz.Mode``."""
        spec = review_spec(asker, what)
        key, now = orjson.dumps(spec, option=orjson.OPT_SORT_KEYS), self.clock.monotonic()
        known = self._said.get(key)
        if known is not None and known[0] > now:
            self._said.move_to_end(key)
            return known[1]
        try:
            decision = _read(await self._post(spec))
        except WebhookError as error:
            log.warning("authorization webhook %s: %s", self.settings.url, error)
            return Decision(False, self.settings.fail_closed, "the authorization webhook gave no answer")
        keep = self.settings.allowed_for if decision.allowed else self.settings.refused_for
        self._said[key] = (now + keep, decision)
        if len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        return decision

    async def rules(self, asker: Asker, namespace: str) -> tuple[list[PolicyRule], str]:
        """See ``authz.Mode``."""
        del asker, namespace
        return [], "webhook authorizer does not support user rule resolution"

    async def _post(self, spec: Raw) -> bytes:
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.settings.context or True))
        limit = aiohttp.ClientTimeout(total=self.settings.timeout)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        try:
            async with self._session.post(
                self.settings.url, data=orjson.dumps(review), headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                body = await answer.content.read(_ANSWER_LIMIT)
                if not 200 <= answer.status < 300:
                    raise WebhookError(f"it answered with HTTP code {answer.status}")
                return body
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise WebhookError(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()


def review_spec(asker: Asker, what: RequestInfo) -> Raw:
    """The question, as a SubjectAccessReview's spec."""
    extra = {key: list(values) for key, values in asker.who.extra.items()}
    spec: Raw = {
        "user": asker.name,
        "groups": list(asker.groups),
        "extra": {**extra, TENANT_ANNOTATION: [asker.tenant]},
    }
    if asker.who.uid:
        spec["uid"] = asker.who.uid
    if not what.is_resource:
        return {**spec, "nonResourceAttributes": {"path": what.path, "verb": what.verb}}
    asked = {
        "namespace": what.namespace,
        "verb": what.verb,
        "group": what.group,
        "version": what.version,
        "resource": what.resource,
        "subresource": what.subresource,
        "name": what.name,
    }
    attributes: Raw = {key: value for key, value in asked.items() if value}
    for name, requirements in (("fieldSelector", what.fields), ("labelSelector", what.labels)):
        if requirements:
            clauses = [{"key": r.key, "operator": r.operator, "values": list(r.values)} for r in requirements]
            attributes[name] = {"requirements": clauses}
    return {**spec, "resourceAttributes": attributes}


def _read(body: bytes) -> Decision:
    """Raises WebhookError."""
    try:
        status = orjson.loads(body)["status"]
        allowed, denied = bool(status.get("allowed")), bool(status.get("denied"))
        reason = str(status.get("reason") or "")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise WebhookError("its answer is no SubjectAccessReview") from error
    if allowed and denied:
        raise WebhookError("its answer both allows and denies")
    return Decision(allowed, denied, reason)
