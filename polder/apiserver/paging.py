"""Opaque continue tokens, and which revision a list is read at.

Source: Kubernetes API concepts, "Retrieving large results sets in chunks" and "Resource versions".
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import msgspec

from polder.api.errors import ApiError, bad_request
from polder.apiserver.hooks import Call
from polder.apiserver.requestinfo import is_true
from polder.store.protocol import Key, Prefix

_EXACT = "Exact"
_NOT_OLDER = "NotOlderThan"
_INT64 = 2**63 - 1
PRESENT = -1
"""The revision in a token that goes on with what stands now, where the first page's is forgotten."""


class _Token(msgspec.Struct, forbid_unknown_fields=True):
    """Where the next page begins; tenant and namespace only where the list spans several."""

    rv: int
    name: str
    namespace: str = ""
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a collection is asked for. ``revision`` None reads the present, but not before ``at_least``."""

    limit: int = 0
    after: Key | None = None
    revision: int | None = None
    at_least: int = 0


def write_token(key: Key, revision: int, prefix: Prefix) -> str:
    """The token that continues after ``key``."""
    namespace = key.namespace if prefix.namespace is None else ""
    token = _Token(revision, key.name, namespace, key.tenant if prefix.tenant is None else "")
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def _read_token(text: str, prefix: Prefix) -> tuple[Key, int]:
    """Raises ApiError 400. Whatever it holds, the key stays inside the prefix."""
    try:
        padded = text + "=" * (-len(text) % 4)
        token = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=_Token)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise bad_request("continue key is not valid") from None
    tenant = prefix.tenant if prefix.tenant is not None else token.tenant
    namespace = prefix.namespace if prefix.namespace is not None else token.namespace
    return Key(prefix.resource, tenant, namespace, token.name), token.rv


def parse_revision(text: str) -> int:
    """A resource version; empty is 0. Raises ApiError 400."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise bad_request(f'Invalid value: "{text}": resourceVersion must be a decimal number')
    return int(text)


def window_of(call: Call, prefix: Prefix) -> Window:
    """limit, continue, resourceVersion and resourceVersionMatch of a list. Raises ApiError 400, 422."""
    query = call.query
    limit = _limit(query.get("limit", ""))
    revision = parse_revision(query.get("resourceVersion", ""))
    match = query.get("resourceVersionMatch", "")
    token = query.get("continue", "")
    _check_match(match, query.get("resourceVersion", ""), token, is_true(query.get("sendInitialEvents")))
    if token:
        if revision:
            raise bad_request("specifying resource version is not allowed when using continue")
        after, pinned = _read_token(token, prefix)
        return Window(limit, after, None if pinned == PRESENT else pinned)
    if revision and (match == _EXACT or (limit and not match)):
        return Window(limit, None, revision)
    return Window(limit, None, None, revision)


def _limit(text: str) -> int:
    if not text:
        return 0
    try:
        found = int(text)
    except ValueError:
        found = _INT64 + 1
    if not -_INT64 <= found <= _INT64:
        raise bad_request(f'limit: Invalid value: "{text}": must be a number of 64 bits')
    return max(0, found)


def _check_match(match: str, revision: str, token: str, initial: bool) -> None:
    if not match:
        return
    problem = ""
    if match not in {_EXACT, _NOT_OLDER}:
        problem = f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan", ""'
    elif token:
        problem = "Forbidden: resourceVersionMatch is forbidden when continue is provided"
    elif not revision and not initial:
        problem = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
    elif match == _EXACT and revision == "0":
        problem = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
    if problem:
        message = f'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: {problem}'
        raise ApiError(422, "Invalid", message, {"group": "meta.k8s.io", "kind": "ListOptions"})
