"""Run by test_apply_kill: applies a room's items and removes them again, and kills itself at a given line of the way."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from polder.sdn.apply.linux.kernel import Kernel, KernelSettings
from polder.sdn.render.linux.items import Item
from polder.sdn.render.linux.text import parse

PLACES = ("/sdn/apply/", "/system/net/")


class Bomb:
    """Counts lines of the code under test, in all threads; ends the process at the given one."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, arg: object) -> Bomb | None:
        if not any(place in frame.f_code.co_filename for place in PLACES):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


async def churn(kernel: Kernel, items: frozenset[Item]) -> list[object]:
    """Everything made, one port taken away, everything removed."""
    failures = [*await kernel.apply([], items)]
    port = [item for item in items if "p-one" in repr(item)]
    failures += await kernel.apply(port, [])
    failures += await kernel.apply(items, [])
    await kernel.close()
    return [str(one) for one in failures]


def main(directory: Path, at: int) -> None:
    """Print what is left of the count at the end, if the end is reached."""
    settings = KernelSettings(directory / "routers", "kill", directory / "node")
    items = parse((directory / "items").read_text())
    bomb = Bomb(at)
    threading.settrace(bomb)
    sys.settrace(bomb)
    failures = asyncio.run(churn(Kernel(settings), items))
    sys.settrace(None)
    print(at - bomb.left, failures)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
