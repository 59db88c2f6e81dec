"""Bootstrap tokens: expired ones go, and ``kube-public/cluster-info`` is signed with those that may sign.

The signature is upstream's: a detached JWS (RFC 7515, HS256) of ``kubeconfig`` under ``jws-kubeconfig-ID``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from polder.api.core import ConfigMap, Secret
from polder.base.clock import Clock
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.reading import find, remove

TYPE = "bootstrap.kubernetes.io/token"
NAMESPACE = "kube-system"
NAME_PREFIX = "bootstrap-token-"
CLUSTER_INFO = "cluster-info"
PUBLIC = "kube-public"
CONFIG = "kubeconfig"
MARK = "jws-kubeconfig-"
SIGNS = "usage-bootstrap-signing"
TokensOf = Callable[[str], Iterable[Secret]]
"""The bootstrap tokens of a tenant, as a cache knows them."""


def texts(secret: Secret) -> dict[str, str]:
    """A Secret's data; what is no text is left out."""
    found = {}
    for key, value in (secret.data or {}).items():
        try:
            found[key] = base64.b64decode(value, validate=True).decode()
        except ValueError:
            continue
    return found


def expires(secret: Secret) -> datetime | None:
    """When a token ends; None for one without an end, or whose end cannot be read."""
    try:
        at = datetime.fromisoformat(texts(secret).get("expiration", ""))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


def sign(content: str, token_id: str, token_secret: str) -> str:
    """The detached JWS of a text."""
    header = json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode()
    signed = _b64(header) + b"." + _b64(content.encode())
    key = f"{token_id}.{token_secret}".encode()
    mark = hmac.new(key, signed, hashlib.sha256).digest()
    return f"{_b64(header).decode()}..{_b64(mark).decode()}"


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signatures(content: str, secrets: Iterable[Secret], now: datetime) -> dict[str, str]:
    """The marks that a text should carry."""
    found = {}
    for secret in secrets:
        data, end = texts(secret), expires(secret)
        token_id, token_secret = data.get("token-id", ""), data.get("token-secret", "")
        if secret.metadata.name != NAME_PREFIX + token_id or not token_secret or data.get(SIGNS) != "true":
            continue
        if secret.metadata.deletion_timestamp is None and (end is None or end > now):
            found[MARK + token_id] = sign(content, token_id, token_secret)
    return found


class BootstrapTokenController:
    """Reconciles a tenant's tokens; key: a token's Secret, or the tenant's ``kube-public/cluster-info``."""

    def __init__(self, client: Client, clock: Clock, tokens: TokensOf) -> None:
        self._client = client
        self._clock = clock
        self._tokens = tokens

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass; the seconds until a token ends. Raises ApiError."""
        if ref.name == CLUSTER_INFO:
            await self._sign(ref)
            return None
        secret = await find(self._client, Secret, ref)
        if secret is None or secret.type != TYPE:
            return None
        end = expires(secret)
        if end is None:
            return None
        left = (end - self._clock.now()).total_seconds()
        if left > 0:
            return min(left, timedelta(hours=1).total_seconds())
        await remove(self._client, Secret, ref, secret)
        return None

    async def _sign(self, ref: Ref) -> None:
        info = await find(self._client, ConfigMap, ref)
        if info is None or CONFIG not in (info.data or {}):
            return
        data = info.data or {}
        wanted = signatures(data[CONFIG], self._tokens(ref.tenant), self._clock.now())
        have = {name: value for name, value in data.items() if name.startswith(MARK)}
        if have != wanted:
            changed: dict[str, str | None] = {**{name: None for name in have if name not in wanted}, **wanted}
            meta = {"uid": info.metadata.uid, "resourceVersion": info.metadata.resource_version}
            await self._client.patch(ConfigMap, ref, {"metadata": meta, "data": changed})
