"""What could not be applied, and whether trying again may help."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from polder.base.errors import PolderError
from polder.sdn.render.linux.items import Item
from polder.system.net.netlink import NetlinkError

_PASSING = frozenset({errno.EBUSY, errno.EAGAIN, errno.EEXIST, errno.ENOBUFS, errno.ENOMEM, errno.EINTR, errno.ENODEV})


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """One item that was refused: one sentence of ``reason``; ``retry`` says that the cause may pass by itself."""

    item: Item
    reason: str
    retry: bool = False

    def __str__(self) -> str:
        """For logs and events."""
        return f"{' '.join(self.item.slot)}: {self.reason}"


def failure(item: Item, cause: Exception) -> ItemFailure:
    """The failure of an item, by what was raised."""
    passing = isinstance(cause, NetlinkError) and cause.number in _PASSING
    return ItemFailure(item, str(cause) if isinstance(cause, PolderError) else repr(cause), passing)
