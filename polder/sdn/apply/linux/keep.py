"""What the kernel forgets when a link gets another MAC or is made anew, noted before so that it can be given back.

A new MAC flushes the link's neighbours, the permanent ones too; a deleted device takes its forwarding entries along.
"""

from __future__ import annotations

from collections.abc import Callable

from polder.sdn.apply.linux.spaces import OpenSpace
from polder.system.net import dumps, requests
from polder.system.net.codec import Message


def neighbours_of(space: OpenSpace, index: int) -> list[Message]:
    """Requests that give a link its permanent neighbours back."""
    return [
        requests.neighbour(index, one.address, one.mac, add=True)
        for one in dumps.neighbours(space.route)
        if one.index == index and one.state & requests.PERMANENT
    ]


def forwarding_of(space: OpenSpace, index: int) -> Callable[[int], list[Message]]:
    """Requests that give a link's forwarding entries to its successor, by the successor's index."""
    kept = [one for one in dumps.forwarding_entries(space.route) if one.index == index and dumps.is_given(one)]
    return lambda successor: [requests.forwarding(successor, one.mac, one.remote, add=True) for one in kept]
