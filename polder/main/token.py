"""`polder token create|list|delete`: tokens that machines join with, kept as bootstrap Secrets in root's kube-system."""

from __future__ import annotations

import argparse
import asyncio
import base64
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from polder.api.core import Secret
from polder.api.errors import ApiError
from polder.api.names import dns_subdomain
from polder.api.polder import SYSTEM_NAMESPACE
from polder.apiserver.authn_bootstrap import (
    JOIN_GROUP,
    NODE_FIELD,
    SECRET_PREFIX,
    SECRET_TYPE,
    USAGE,
    decode_data,
    expired,
)
from polder.base.clock import stamp
from polder.base.errors import PermanentError
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.cli.output import Output
from polder.client.client import Client
from polder.main.credentials import Credentials
from polder.main.hostnet import cluster_of
from polder.system.pki import pin_of

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
UNITS = {"m": 60, "h": 3600, "d": 86400}
LONGEST = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token as `list` shows it; ``expires`` is a time stamp, empty for never."""

    id: str
    node: str
    expires: str
    usable: str


def lifetime(text: str) -> timedelta:
    """``30m``, ``24h`` or ``7d``. Raises PermanentError."""
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS or not number.isdigit() or not 0 < int(number) * UNITS[unit] <= LONGEST.total_seconds():
        raise PermanentError(f"--ttl {text}: write 30m, 24h or 7d, at most {LONGEST.days}d")
    return timedelta(seconds=int(number) * UNITS[unit])


async def create(client: Client, life: timedelta, node: str = "") -> str:
    """A new token, ``ID.SECRET``. Raises ApiError."""
    identifier, secret = (_random(6), _random(16))
    data = {
        "token-id": identifier,
        "token-secret": secret,
        USAGE: "true",
        "auth-extra-groups": JOIN_GROUP,
        "expiration": stamp(datetime.now(UTC) + life),
        "description": "polder token create",
    }
    if node:
        data[NODE_FIELD] = node
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET_PREFIX + identifier, "namespace": SYSTEM_NAMESPACE},
        "type": SECRET_TYPE,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }
    await client.raw("POST", f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/secrets", msgspec.json.encode(body))
    return f"{identifier}.{secret}"


async def listing(client: Client) -> list[JoinToken]:
    """The tokens that there are, without their secrets."""
    path = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/secrets?fieldSelector=type%3D{SECRET_TYPE.replace('/', '%2F')}"
    found, now = [], datetime.now(UTC)
    for secret in msgspec.json.decode(await client.raw("GET", path))["items"]:
        data = decode_data(secret)
        if JOIN_GROUP in data.get("auth-extra-groups", ""):
            usable = "no" if expired(data, now) else "yes"
            found.append(
                JoinToken(data.get("token-id", ""), data.get(NODE_FIELD, ""), data.get("expiration", ""), usable)
            )
    return found


async def delete(client: Client, identifier: str) -> None:
    """Takes a token back: from now on nobody joins with it. Raises PermanentError if there is none."""
    try:
        await client.delete(Secret, Ref(ROOT, SYSTEM_NAMESPACE, SECRET_PREFIX + identifier.partition(".")[0]))
    except ApiError as error:
        if error.is_not_found:
            raise PermanentError(f"there is no token {identifier.partition('.')[0]}") from error
        raise


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


async def _with(credentials: Credentials, work: Callable[[Client], Awaitable[None]]) -> None:
    client = credentials.admin_client()
    try:
        await work(client)
    finally:
        await client.close()


def command(args: argparse.Namespace) -> int:
    """Runs `polder token`."""
    cluster, out = cluster_of(args.state), Output()
    credentials = Credentials.of(cluster)

    async def work(client: Client) -> None:
        if args.action == "create":
            if args.node and dns_subdomain(args.node):
                raise PermanentError(f"--node {args.node}: {dns_subdomain(args.node)[0]}")
            token = await create(client, lifetime(args.ttl), args.node)
            out.line(f"{token}:{pin_of(credentials.pki.trust.encode())}")
            out.note(
                f"On the machine that joins: polder agent --server {cluster.server} --token-file FILE --address ADDRESS"
            )
        elif args.action == "list":
            tokens = await listing(client)
            if args.output == "json":
                out.json([asdict(token) for token in tokens])
            else:
                out.table(
                    ["id", "node", "expires", "usable"],
                    [[t.id, t.node or "any", t.expires, t.usable] for t in tokens],
                    3,
                )
        else:
            await delete(client, args.id)
            out.note(f"deleted token {args.id.partition('.')[0]}")

    asyncio.run(_with(credentials, work))
    return 0
