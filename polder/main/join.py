"""A machine becomes a node of a running cluster: it checks the server by the token's pin, makes its own key, has its
certificate signed, and writes the agent's configuration.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from polder.api.names import dns_subdomain
from polder.base.errors import PermanentError, RetryableError
from polder.main.config import AgentConfig, dump
from polder.node.archive import build_images
from polder.node.renewal import PATH, Signed, Trust
from polder.system.commands import run
from polder.system.pki import NODE_PREFIX, NODES, Leaf, PkiError, new_request, pinned, write_private

TOKEN = re.compile(r"(?P<token>[a-z0-9]{6}\.[a-z0-9]{16}):(?P<pin>sha256:[0-9a-f]{64})")
ANSWER_LIMIT = 256 * 1024
TIME_LIMIT = 30.0


class _Address(msgspec.Struct, frozen=True):
    """An element of ``addr_info`` of ``ip -j address``."""

    local: str = ""


class _Link(msgspec.Struct, frozen=True):
    """An element of ``ip -j address``."""

    ifname: str
    addr_info: list[_Address] = []


class JoinError(PermanentError):
    """The machine could not join, and why."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What `polder token create` prints: ``ID.SECRET:sha256:HEX``."""

    token: str = field(repr=False)
    pin: str

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Raises JoinError; the message does not repeat the token."""
        found = TOKEN.fullmatch(text.strip())
        if found is None:
            raise JoinError("the token is not ID.SECRET:sha256:HEX, as `polder token create` prints it")
        return cls(found["token"], found["pin"])


@dataclass(frozen=True, slots=True)
class Joining:
    """What a machine that joins chooses. ``uplink`` is the link that has ``address``; ``others`` are further servers of the
    same cluster.
    """

    server: str
    node: str
    address: str
    state: Path
    uplink: str
    others: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises JoinError naming the option."""
        if (self.state / "cluster.json").exists():
            raise JoinError(f"--state {self.state}: holds a cluster of `polder up`; name another directory")
        for option, url in (("--server", self.server), *(("--other-server", other) for other in self.others)):
            if not url.startswith("https://"):
                raise JoinError(f"{option} {url}: is no https URL")
        if problem := dns_subdomain(self.node):
            raise JoinError(f"--node {self.node}: {problem[0]}")
        try:
            ipaddress.ip_address(self.address)
        except ValueError as error:
            raise JoinError(f"--address {self.address}: {error}") from error

    @property
    def config(self) -> Path:
        """The agent's configuration."""
        return self.state / "agent.yaml"

    @property
    def authority(self) -> Path:
        """Whom the agent trusts."""
        return self.state / "pki" / "authority.crt"

    @property
    def pair(self) -> tuple[Path, Path]:
        """The agent's certificate and key."""
        return self.state / "pki" / "agent.crt", self.state / "pki" / "agent.key"


async def join(joining: Joining, token: JoinToken) -> None:
    """Joins, and writes everything that `polder agent --config` needs. Raises JoinError, RetryableError."""
    joining.check()
    asked = new_request(f"{NODE_PREFIX}{joining.node}", (NODES,), (joining.address,))
    try:
        trust = msgspec.json.decode(await _ask(joining.server, _unchecked()), type=Trust)
        authority = pinned(trust.authority.encode(), token.pin)
        context = ssl.create_default_context(cadata=authority.decode())
        body = msgspec.json.encode({"request": asked.certificate.decode()})
        signed = msgspec.json.decode(await _ask(joining.server, context, body, token.token), type=Signed)
    except (PkiError, msgspec.MsgspecError) as error:
        raise JoinError(f"{joining.server}: {error}") from error
    joining.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    # What the server, now that it is known, names: several while an authority is rolled over.
    write_private(joining.authority, signed.authority.encode())
    Leaf(signed.certificate.encode(), asked.key).replace(*joining.pair)
    write_private(joining.config, dump(_config(joining)).encode())


def _config(joining: Joining) -> AgentConfig:
    certificate, key = joining.pair
    return AgentConfig(
        node=joining.node,
        server=joining.server,
        other_servers=list(joining.others),
        authority=str(joining.authority),
        certificate=str(certificate),
        key=str(key),
        state=str(joining.state),
        images=str(joining.state / "images"),
        address=joining.address,
        uplink=joining.uplink,
    )


def _unchecked() -> ssl.SSLContext:
    """For the question about the authorities alone: nothing secret is said, and the answer is checked by the pin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _ask(server: str, context: ssl.SSLContext, body: bytes | None = None, token: str = "") -> bytes:
    """Raises JoinError for what the server refuses, RetryableError where it does not answer."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connector, limit = aiohttp.TCPConnector(ssl=context), aiohttp.ClientTimeout(total=TIME_LIMIT)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=limit) as session,
            session.request(
                "GET" if body is None else "POST", server.rstrip("/") + PATH, data=body, headers=headers,
                allow_redirects=False,
            ) as answer,
        ):  # fmt: skip
            found = await answer.content.read(ANSWER_LIMIT)
            while chunk := await answer.content.read(ANSWER_LIMIT):
                found += chunk
                if len(found) > ANSWER_LIMIT:
                    raise JoinError(f"{server}: the answer is too long")
    except aiohttp.ClientConnectorCertificateError as error:
        why = "its certificate is not by the authority that the token's pin names"
        raise JoinError(f"{server}: {why}; if that was rolled over, make a new token") from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise RetryableError(f"{server} does not answer: {error or type(error).__name__}") from error
    if answer.status >= 400:
        raise JoinError(_refusal(server, answer.status, found))
    return found


def _refusal(server: str, code: int, body: bytes) -> str:
    if code == 401:
        return f"{server} does not accept the token: it is unknown, expired or taken back"
    try:
        message = msgspec.json.decode(body, type=dict)["message"]
    except (msgspec.MsgspecError, KeyError):
        message = f"HTTP code {code}"
    return f"{server} refuses: {message}"


def link_with(address: str) -> str:
    """The link of this machine that has an address. Raises JoinError."""
    for link in msgspec.json.decode(run("ip", "-j", "address", "show"), type=list[_Link]):
        if any(found.local == address for found in link.addr_info):
            return link.ifname
    raise JoinError(f"--address {address}: no link of this machine has it")


def ensure_joined(joining: Joining, text: str) -> Path:
    """Joins unless this machine has already; the agent's configuration. Raises JoinError, RetryableError."""
    if not joining.config.exists():
        asyncio.run(join(joining, JoinToken.parse(text)))
        build_images(joining.state / "images")
    return joining.config


def own_name() -> str:
    """What this machine is called, as a node's name."""
    return socket.gethostname().lower()
