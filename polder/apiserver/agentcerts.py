"""Certificates of nodes: signed when one joins with a bootstrap token, renewed with the certificate that it has, revoked.

``/polder/v1/certificates`` in ``root``. GET: the authorities that servers are trusted by, for anybody (they are public, a
joining node checks them by their pin), and whether the certificate that is shown should be renewed. POST
``{"request": PEM}``: signs. DELETE ``?node=NAME`` (platform administrators): takes a node's certificates back.

Of each node that asked here a row says which keys are good: the one signed last and, after a renewal, the one before it.
So a name is one machine's at a time, and what was signed for another before is worthless.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

import orjson
from aiohttp import web

from polder.api.core import Node
from polder.api.errors import ApiError, bad_request, method_not_allowed
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.api.names import dns_subdomain
from polder.api.polder import SYSTEM_NAMESPACE
from polder.apiserver.answers import raw_answer
from polder.apiserver.authn_bootstrap import JOIN_GROUP, NODE_FIELD, SECRET_PREFIX, USER_PREFIX, decode_data
from polder.apiserver.body import media_type, parse_object, read_body
from polder.apiserver.following import answered
from polder.apiserver.hooks import Call
from polder.apiserver.noderecord import ROWS, NodeRecord, put_record, read_record, record_key
from polder.apiserver.types import Identity, Role
from polder.base.clock import Clock, stamp
from polder.base.ids import ROOT
from polder.store.protocol import ChangeType, CompactedError, ConflictError, Entry, Key, Prefix, Store
from polder.system.pki import (
    AGENTS,
    NODE_PREFIX,
    NODES,
    SKEW,
    Pki,
    PkiError,
    Request,
    needs_renewal,
    parse_client,
    read_request,
)

log = logging.getLogger(__name__)

NODE = kind_of(Node)
BODY_LIMIT = 128 * 1024
BODY_TIME = 30.0
ADDRESSES = 8

Drop = Callable[[str, Collection[str]], None]
"""Ends a node's stream unless it is by one of these keys."""


@dataclass(frozen=True, slots=True)
class AgentCertificates:
    """The handler."""

    store: Store
    pki: Pki
    connected: Callable[[str], bool]
    drop: Drop
    clock: Clock

    async def serve(self, call: Call) -> web.StreamResponse:
        """One request; the authorizer let in who may. Raises ApiError."""
        if call.info.tenant != ROOT:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        match call.info.verb:
            case "get":
                return raw_answer({**self._trust(), "renew": self._should_renew(call)})
            case "post":
                return raw_answer(await self._sign(call), 201)
            case "delete":
                return raw_answer(await self._revoke(call))
        raise method_not_allowed(NODE, call.info.verb)

    async def run(self) -> None:
        """Ends the streams of nodes whose certificates count no more, whichever server signed or revoked; until cancelled."""
        while True:
            page = await answered(lambda: self.store.list(ROWS))
            for entry in page.entries:
                self.drop(entry.key.name, read_record(entry).keys)
            try:
                async for batch in self.store.watch(ROWS, page.revision):
                    for change in batch.changes:
                        if change.type is ChangeType.PUT:
                            record = read_record(Entry(change.key, change.value, change.revision))
                            self.drop(change.key.name, record.keys)
            except CompactedError:
                continue
            return

    def _trust(self) -> Raw:
        return {"authority": self.pki.trust}

    def _should_renew(self, call: Call) -> bool:
        """Whether two thirds of the certificate's life have gone, or its authority signs no more."""
        der = call.connection.certificate
        if der is None or call.who.role is not Role.NODE:
            return False
        name = parse_client(der)
        begin = name.not_before + SKEW
        return not self.pki.signs(AGENTS, der) or needs_renewal(begin, name.not_after, self.clock.now())

    async def _sign(self, call: Call) -> Raw:
        body = parse_object(await read_body(call.request, BODY_LIMIT, BODY_TIME), media_type(call.request))
        try:
            asked = read_request(str(body.get("request", "")).encode())
        except PkiError as error:
            raise bad_request(str(error)) from error
        node = asked.common_name.removeprefix(NODE_PREFIX)
        if asked.organizations != (NODES,) or node == asked.common_name or dns_subdomain(node):
            raise bad_request(f"the request's subject must be O={NODES}, CN={NODE_PREFIX}NAME")
        _check_addresses(asked)
        if call.who.role is Role.NODE:
            keys, token = await self._renewed(call, node, asked), ""
        else:
            keys, token = (asked.key_mark,), await self._joining(call.who, node, asked)
        await self._record(node, NodeRecord(keys, asked.addresses, stamp(self.clock.now()), token))
        log.info("signed a certificate of node %s for %s", node, ", ".join(asked.addresses))
        try:
            certificate = self.pki.sign_agent(str(body["request"]).encode(), asked.common_name)
        except PkiError as error:
            raise bad_request(str(error)) from error
        return {"certificate": certificate.decode(), **self._trust()}

    async def _renewed(self, call: Call, node: str, asked: Request) -> tuple[str, ...]:
        """The keys that are good once a node's certificate is renewed. Raises ApiError 403."""
        assert call.connection.certificate is not None, "a node is known by its certificate"
        shown = parse_client(call.connection.certificate)
        if node != call.who.node:
            raise _forbidden(f"a node renews its own certificate, {call.who.node}'s")
        if shown.addresses and set(asked.addresses) != set(shown.addresses):
            raise _forbidden(
                f"the addresses of node {node} are {', '.join(shown.addresses)}; join again to change them"
            )
        await self._check_others(node, asked)
        return tuple(dict.fromkeys([asked.key_mark, shown.key]))

    async def _joining(self, who: Identity, node: str, asked: Request) -> str:
        """The identifier of the token that lets a node in. Raises ApiError 403, 409."""
        token = who.name.removeprefix(USER_PREFIX)
        entry = await self.store.get(Key("secrets", ROOT, SYSTEM_NAMESPACE, SECRET_PREFIX + token))
        if entry is None or token == who.name or JOIN_GROUP not in who.groups or who.impersonator is not None:
            raise _forbidden("nodes join with a token of `polder token create`")
        only = decode_data(orjson.loads(entry.value)).get(NODE_FIELD, "")
        if only not in {"", node}:
            raise _forbidden("the token is for another node")
        if self.connected(node) or await self._is_alive(node):
            raise ApiError(
                409, "Conflict", f"there is a node {node} that is alive; choose another name, or end it first"
            )
        await self._check_others(node, asked)
        return token

    async def _is_alive(self, node: str) -> bool:
        """Whether the controllers, by their own clock, have not given the node up."""
        entry = await self.store.get(Key(NODE.resource, ROOT, "", node))
        status = (orjson.loads(entry.value).get("status") or {}) if entry else {}
        ready = next((c for c in status.get("conditions") or [] if c.get("type") == "Ready"), None)
        return ready is not None and ready.get("status") != "Unknown"

    async def _check_others(self, node: str, asked: Request) -> None:
        """An address is one node's: neither another Node's, nor in another's certificate. Raises ApiError 409."""
        wanted = set(asked.addresses)
        nodes = (await self.store.list(Prefix(NODE.resource, ROOT))).entries
        claimed = {entry.key.name: _internal(entry) for entry in nodes}
        for entry in (await self.store.list(ROWS)).entries:
            claimed.setdefault(entry.key.name, set()).update(read_record(entry).addresses)
        if any(wanted & addresses for name, addresses in claimed.items() if name != node):
            raise ApiError(409, "Conflict", f"an address of {', '.join(sorted(wanted))} is another node's")

    async def _record(self, node: str, record: NodeRecord) -> None:
        current = await self.store.get(record_key(node))
        try:
            await self.store.commit([put_record(node, record, current.revision if current else 0)])
        except ConflictError as error:
            raise ApiError(409, "Conflict", f"node {node} joins somewhere else right now") from error

    async def _revoke(self, call: Call) -> Raw:
        if call.who.role is not Role.PLATFORM_ADMIN:
            raise _forbidden("certificates are revoked by the platform's administrators")
        node = call.query.get("node", "")
        if dns_subdomain(node):
            raise bad_request("name the node: ?node=NAME")
        await self.store.commit([put_record(node, NodeRecord((), (), stamp(self.clock.now())), None)])
        self.drop(node, ())
        log.info("the certificates of node %s are revoked", node)
        return {"node": node}


def _check_addresses(asked: Request) -> None:
    """Raises ApiError 400."""
    if not 1 <= len(asked.addresses) <= ADDRESSES or asked.dns or asked.uris or asked.emails:
        raise bad_request(f"the request must name one to {ADDRESSES} addresses of the node, and nothing else")
    for text in asked.addresses:
        address = ipaddress.ip_address(text)
        if address.is_unspecified or address.is_multicast or address.is_loopback:
            raise bad_request(f"{address} is no node's address")


def _internal(entry: Entry) -> set[str]:
    """The underlay addresses of a Node."""
    listed = (orjson.loads(entry.value).get("status") or {}).get("addresses") or []
    return {str(a.get("address")) for a in listed if a.get("type") == "InternalIP"}


def _forbidden(why: str) -> ApiError:
    return ApiError(403, "Forbidden", why)
