"""Whether nodes that answer for addresses on the outside are there: asked several times a second, so that an address leaves a
dead
machine within a second (docs/adr/0018).

The question is a TCP connection to a port on which nobody listens. The machine's kernel answers it, with a refusal, whether or
not an
agent runs there: an agent that is started anew loses no address. A node that has never answered is judged by its lease alone:
something
between may drop such questions. Only nodes that have an address are asked.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterable

from polder.base.clock import Clock

PORT = 4789
"""VXLAN's, over TCP, where nothing is served: who lets VXLAN through lets this through most likely."""
EVERY = 0.15
"""Seconds between questions to one node."""
PATIENCE = 0.45
"""Seconds without an answer, to at least ``AT_LEAST`` questions, after which a node counts as lost."""
AT_LEAST = 3
MOST = 256
"""Nodes that are asked; of more, some are judged by their lease alone."""
_ANSWERED = frozenset({0, errno.ECONNREFUSED, errno.ECONNRESET})
log = logging.getLogger(__name__)


class _Question:
    """One connection that is being tried; no answer is waited for."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._answered = self._socket.connect_ex((address, PORT)) in _ANSWERED

    def is_answered(self) -> bool:
        """Whether the other machine has said anything. Asked of the kernel, so that a busy process of ours sees no other dead."""
        if self._answered:
            return True
        said = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if said in _ANSWERED - {0}:
            self._answered = True
        elif said == 0:
            try:
                self._socket.getpeername()
                self._answered = True
            except OSError:
                return False
        return self._answered

    def close(self) -> None:
        self._socket.close()


class _Watched:
    """One node: the questions that are open, and when it was last heard."""

    def __init__(self, address: str, now: float) -> None:
        self.address = address
        self.heard = now
        self.known = False
        self.lost = False
        self._open: list[_Question] = []

    def ask(self) -> None:
        """One question more. OSError where none can be sent from here: that says nothing of the node."""
        self._open.append(_Question(self.address))

    def listen(self, now: float) -> None:
        """Take in what was answered."""
        answered = [question.is_answered() for question in self._open]
        if any(answered):
            self.known, self.heard, self.lost = True, now, False
            self.close()
        elif self.known and len(self._open) >= AT_LEAST and now - self.heard > PATIENCE:
            self.lost = True
        while len(self._open) > AT_LEAST:
            self._open.pop(0).close()

    def close(self) -> None:
        """Forget open questions."""
        for question in self._open:
            question.close()
        self._open.clear()


class Pulse:
    """Asks the nodes that ``holders`` names, at the addresses that ``address_of`` gives."""

    def __init__(
        self,
        holders: Callable[[], Iterable[str]],
        address_of: Callable[[str], str],
        clock: Clock,
    ) -> None:
        self._holders = holders
        self._address_of = address_of
        self._listeners: list[Callable[[str], None]] = []
        self._clock = clock
        self._watched: dict[str, _Watched] = {}

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with the name of each node that is lost, or answers again."""
        self._listeners.append(listener)

    def is_lost(self, node: str) -> bool:
        """Whether the node has stopped answering. One that lost its addresses is asked on until it answers or is gone."""
        known = self._watched.get(node)
        return known is not None and known.lost

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self.look()
                await asyncio.sleep(EVERY)
        finally:
            self.close()

    def close(self) -> None:
        """Forget all nodes."""
        while self._watched:
            self._watched.popitem()[1].close()

    def look(self) -> None:
        """One round: hear what was answered, ask again."""
        now = self._clock.monotonic()
        self._choose(now)
        for name, known in list(self._watched.items()):
            before = known.lost
            known.listen(now)
            if known.lost != before:
                log.info("node %s %s", name, "does not answer; its addresses move" if known.lost else "answers again")
                for listener in self._listeners:
                    listener(name)
            try:
                known.ask()
            except OSError as error:
                log.debug("node %s could not be asked: %s", name, error)
                known.heard = now

    def _choose(self, now: float) -> None:
        wanted = {name: address for name in sorted(set(self._holders()))[:MOST] if (address := self._address_of(name))}
        for name in [name for name, known in self._watched.items() if known.lost]:
            if address := self._address_of(name):
                wanted[name] = address
        for name in [name for name, known in self._watched.items() if wanted.get(name) != known.address]:
            self._watched.pop(name).close()
        for name, address in wanted.items():
            if name not in self._watched:
                self._watched[name] = _Watched(address, now)
