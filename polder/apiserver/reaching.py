"""What reaches into pods: logs, commands, forwarded ports, proxies; composed, with one account of its streams."""

from __future__ import annotations

from collections.abc import Mapping

from polder.apiserver.hooks import Authorizer, Handler
from polder.apiserver.logs import Logs
from polder.apiserver.nodepages import NodePages
from polder.apiserver.outcalls import Outcalls
from polder.apiserver.portforward import PortForward
from polder.apiserver.proxying import Proxies
from polder.apiserver.remotecommand import RemoteCommands
from polder.apiserver.stream import NodeStreams
from polder.apiserver.streamshares import StreamShares
from polder.store.protocol import Store


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
        return {
            ("pods", "log"): self._logs.serve,
            ("pods", "exec"): self._commands.serve,
            ("pods", "attach"): self._commands.serve,
            ("pods", "portforward"): self._forward.serve,
            ("pods", "proxy"): self._proxies.pod,
            ("services", "proxy"): self._proxies.service,
            ("nodes", "proxy"): self._pages.serve,
        }
