"""What the pipeline asks of a kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from polder.sdn.apply.linux.failure import ItemFailure
from polder.sdn.render.linux.items import Item


class KernelPort(Protocol):
    """What is asked of the kernel (apply/linux/kernel.py; testing/kernel.py)."""

    async def observe(self, expected: Iterable[Item] = ()) -> frozenset[Item]:
        """What stands."""
        ...

    async def apply(self, remove: Iterable[Item], add: Iterable[Item]) -> list[ItemFailure]:
        """Take away and make."""
        ...

    async def wait_gone(self, items: Iterable[Item]) -> None:
        """Until removed links no longer exist."""
        ...

    async def counts(self, space: str) -> dict[str, list[tuple[int, int]]]:
        """Packets and bytes that the rules of a space's policies have counted, by chain."""
        ...

    async def meddled(self) -> bool:
        """Whether somebody else changed rules since the last call that changed or observed them."""
        ...
