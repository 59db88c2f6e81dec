"""Hearing that links, addresses, routes or neighbours went, or that a link went down, in a namespace (rtnetlink's groups)."""

from __future__ import annotations

import errno
import socket

from polder.system.net.codec import HEADER
from polder.system.net.requests import DELADDR, DELLINK, DELNEIGH, DELROUTE, LINK, NEIGH, NEWLINK, NTF_PROXY, UP

_GROUPS = sum(1 << (group - 1) for group in (1, 3, 5, 7, 9, 11))
"""RTNLGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE."""
_READ = 1 << 16
_LOST = frozenset({DELLINK, DELADDR, DELROUTE})


class Losses:
    """A socket in the namespace of the calling thread. What comes to be there is no loss: nothing is built on it."""

    def __init__(self, *, neighbours: bool = True) -> None:
        """``neighbours`` off: only those count that were announced, since the kernel itself forgets others."""
        self._neighbours = neighbours
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, _GROUPS))
        self._socket.setblocking(False)

    def drain(self) -> bool:
        """Whether anything was lost since the last call; also where so much has happened that the kernel told no more."""
        lost = False
        while True:
            try:
                data = self._socket.recv(_READ)
            except BlockingIOError:
                return lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            lost = self._is_loss(data) or lost

    def _is_loss(self, data: bytes) -> bool:
        offset = 0
        while offset + HEADER.size <= len(data):
            length, kind, *_ = HEADER.unpack_from(data, offset)
            at = offset + HEADER.size
            if kind in _LOST:
                return True
            if kind == NEWLINK and not LINK.unpack_from(data, at)[3] & UP:
                return True
            if kind == DELNEIGH and (self._neighbours or NEIGH.unpack_from(data, at)[3] & NTF_PROXY):
                return True
            offset += max((length + 3) & ~3, HEADER.size)
        return False

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()
