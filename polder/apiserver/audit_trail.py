"""One request on its way through the dispatcher, as the audit sees it."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web

from polder.apiserver.audit import Asked, Auditor
from polder.apiserver.audit_policy import Verdict
from polder.apiserver.types import Connection, Decision, Identity, RequestInfo


class Trail:
    """Collects what is known of a request; without an auditor it does nothing."""

    __slots__ = ("_asked", "_at", "_auditor", "_decision", "_how", "_id", "_request")

    def __init__(self, auditor: Auditor | None, request: web.BaseRequest, request_id: str) -> None:
        self._auditor = auditor
        self._request = request
        self._id = request_id
        self._at: datetime | None = auditor.now() if auditor is not None else None
        self._asked: Asked | None = None
        self._how: Verdict | None = None
        self._decision: Decision | None = None

    def asks(self, connection: Connection, who: Identity, what: RequestInfo) -> None:
        """Somebody who is known asks; said again as more becomes known."""
        if self._at is not None:
            self._asked = Asked(self._request, connection, self._id, self._at, who, what)

    def enters(self) -> None:
        """It is known who asks what of which tenant."""
        if self._auditor is not None and self._asked is not None:
            self._how = self._auditor.begin(self._asked)

    def allowed(self, decision: Decision) -> None:
        """The request may go on."""
        self._decision = decision
        if self._auditor is None or self._asked is None or self._how is None:
            return
        if self._asked.what.verb == "watch":
            self._auditor.started(self._asked, self._how)

    def done(self, response: web.StreamResponse) -> None:
        """The answer is given."""
        if self._auditor is None or self._asked is None:
            return
        if self._how is None:  # refused before it was known which tenant is meant
            self.enters()
        assert self._how is not None
        self._auditor.done(self._asked, self._how, response, self._decision)
