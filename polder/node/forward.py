"""Connections into pods' own network namespaces (port forwarding): to the pod's localhost, as the server asks for them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter, OrderedDict
from typing import Any, Final

import orjson

from polder.api.meta import Raw
from polder.base.errors import PolderError
from polder.client.carry import ByteStream, carry
from polder.system.cri import CriClient
from polder.system.net.netns import Netns, open_netns, own_netns
from polder.system.net.sockets import unconnected_socket

log = logging.getLogger(__name__)

TENANT_LIMIT: Final = 256
"""Forwarded connections of one tenant at a time on this node."""
CONNECT_LIMIT: Final = 10.0
CONNECTED: Final = b"\0"
"""What the server is told when the connection stands."""
PATHS: Final = 512
"""Sandboxes whose network namespace is remembered."""


class Forwards:
    """Serves the server's streams of the kind ``forward``."""

    def __init__(self, cri: CriClient) -> None:
        self._cri = cri
        self._open: Counter[str] = Counter()
        self._paths: OrderedDict[str, str] = OrderedDict()

    async def serve(self, header: Raw, stream: ByteStream) -> None:
        """One connection to its end; a refusal resets the stream with its reason."""
        tenant, uid, port = header.get("tenant"), header.get("uid"), header.get("port")
        if not isinstance(tenant, str) or not isinstance(uid, str) or not isinstance(port, int) or not uid:
            await stream.reset("forwarding needs tenant, uid and port")
            return
        if self._open[tenant] >= TENANT_LIMIT:
            await stream.reset("too many forwarded connections are open for this tenant on this node")
            return
        self._open[tenant] += 1
        try:
            await self._serve(uid, port, stream)
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    async def _serve(self, uid: str, port: int, stream: ByteStream) -> None:
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                sock = await self._connect(uid, port)
        except (OSError, PolderError) as error:
            await stream.reset(str(error) or "i/o timeout")
            return
        try:
            await stream.write(CONNECTED)
        except BaseException:
            sock.close()
            raise
        try:
            await carry(sock, stream)
        except OSError as error:
            log.debug("a forwarded connection broke: %s", error)

    async def _connect(self, uid: str, port: int) -> socket.socket:
        """To IPv4's localhost, else IPv6's. Raises OSError, PolderError."""
        sandboxes = [s for s in await self._cri.list_sandboxes(uid) if s.ready]
        if not sandboxes:
            raise OSError("the pod's sandbox is not running")
        sandbox = max(sandboxes, key=lambda s: s.created)
        path = await self._path(sandbox.id)
        why = []
        with open_netns(path) if path else own_netns() as space:
            for address, said in (("127.0.0.1", "IPv4: dial tcp4 127.0.0.1"), ("::1", "IPv6 dial tcp6 [::1]")):
                try:
                    return await _connected(space, address, port)
                except OSError as error:
                    plain = os.strerror(error.errno).lower() if error.errno else str(error)
                    why.append(f"{said}:{port}: connect: {plain}")
        raise OSError(f'failed to connect to localhost:{port} inside namespace "{sandbox.id}", {" ".join(why)}')

    async def _path(self, sandbox: str) -> str:
        """The sandbox's network namespace; empty for the node's own."""
        found = self._paths.get(sandbox)
        if found is None:
            found = self._paths[sandbox] = netns_of(await self._cri.sandbox_details(sandbox))
            while len(self._paths) > PATHS:
                self._paths.popitem(last=False)
        return found


async def _connected(space: Netns, address: str, port: int) -> socket.socket:
    sock = await asyncio.to_thread(unconnected_socket, space, address)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def netns_of(details: str) -> str:
    """The path of a sandbox's network namespace from the runtime's JSON about it; empty where it is the node's."""
    found: Any = orjson.loads(details)
    spaces = ((found.get("runtimeSpec") or {}).get("linux") or {}).get("namespaces") or []
    return next((str(space.get("path") or "") for space in spaces if space.get("type") == "network"), "")
