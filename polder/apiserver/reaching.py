"""What reaches into pods: logs, commands, forwarded ports, proxies; composed, with one account of its streams."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from aiohttp import web

from polder.apiserver.hooks import Authorizer, Call, Handler
from polder.apiserver.logs import Logs
from polder.apiserver.nodepages import NodePages
from polder.apiserver.outcalls import Outcalls
from polder.apiserver.portforward import PortForward
from polder.apiserver.proxying import Proxies
from polder.apiserver.remotecommand import RemoteCommands
from polder.apiserver.stream import NodeStreams
from polder.apiserver.streamshares import StreamShares
from polder.store.protocol import Store

log = logging.getLogger(__name__)


class Reaching:
    """The handlers by (resource, subresource)."""

    def __init__(self, store: Store, streams: NodeStreams, authorizer: Authorizer, outcalls: Outcalls) -> None:
        shares = StreamShares()
        self._logs = Logs(store, streams, shares)
        self._commands = RemoteCommands(store, streams, authorizer, shares)
        self._forward = PortForward(store, streams, authorizer, shares)
        self._proxies = Proxies(store, outcalls)
        self._pages = NodePages(store, streams)

    def handlers(self) -> Mapping[tuple[str, str], Handler]:
        """For ``Parts.subresources``."""
        found: dict[tuple[str, str], Handler] = {
            ("pods", "log"): self._logs.serve,
            ("pods", "exec"): self._commands.serve,
            ("pods", "attach"): self._commands.serve,
            ("pods", "portforward"): self._forward.serve,
            ("pods", "proxy"): self._proxies.pod,
            ("services", "proxy"): self._proxies.service,
            ("nodes", "proxy"): self._pages.serve,
        }
        return {where: _lasting(handler) for where, handler in found.items()}


def _lasting(handler: Handler) -> Handler:
    """The same; that a client leaves in the middle is no failure of the server's."""

    async def serve(call: Call) -> web.StreamResponse:
        try:
            return await handler(call)
        except ConnectionError as error:
            log.debug("the client of %s left: %s", call.info.path, error)
            if call.request.transport is not None:
                call.request.transport.abort()  # it may be no HTTP any more
            return web.Response(status=499)

    return serve
