"""Opaque continue tokens, and which revision a list is read at.

Source: Kubernetes API concepts, "Retrieving large results sets in chunks" and "Resource versions"; apimachinery, validation of
ListOptions.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from polder.api.errors import Field, bad_request
from polder.apiserver.hooks import Call
from polder.apiserver.options import flag, invalid_options
from polder.store.protocol import Key, Prefix

_EXACT = "Exact"
_NOT_OLDER = "NotOlderThan"
_INT64 = 2**63 - 1
_OPTIONS, _INITIAL = "ListOptions", "sendInitialEvents"
_CONTINUED = "resourceVersionMatch is forbidden when continue is provided"
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
    _check_list(query)
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


def _check_list(query: Mapping[str, str]) -> None:
    """Raises ApiError 400, 422."""
    match, at = query.get("resourceVersionMatch", ""), Field("resourceVersionMatch")
    problems = []
    if match and not query.get("resourceVersion"):
        problems.append(at.forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"))
    if match and query.get("continue"):
        problems.append(at.forbidden(_CONTINUED))
    if match and match not in {_EXACT, _NOT_OLDER}:
        problems.append(at.not_supported(match, [_EXACT, _NOT_OLDER, ""]))
    if match == _EXACT and query.get("resourceVersion") == "0":
        problems.append(at.forbidden('resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if flag(query, _INITIAL) is not None:
        problems.append(Field(_INITIAL).forbidden("sendInitialEvents is forbidden for list"))
    if problems:
        raise invalid_options(_OPTIONS, problems)


def initial_events(query: Mapping[str, str]) -> bool:
    """Whether a watch begins with what is there: if it says so, or names neither a revision nor what it begins with.
    Raises ApiError 400, 422.
    """
    match, at = query.get("resourceVersionMatch", ""), Field("resourceVersionMatch")
    wanted = flag(query, _INITIAL)
    problems = []
    if wanted is not None and match != _NOT_OLDER:
        problems.append(at.forbidden(f"sendInitialEvents requires setting resourceVersionMatch to {_NOT_OLDER}"))
    if match and wanted is None:
        problems.append(
            at.forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        )
    if match not in {"", _NOT_OLDER}:
        problems.append(at.not_supported(match, [_NOT_OLDER]))
    if match and query.get("continue"):
        problems.append(at.forbidden(_CONTINUED))
    if problems:
        raise invalid_options(_OPTIONS, problems)
    return query.get("resourceVersion", "") in {"", "0"} if wanted is None else wanted
