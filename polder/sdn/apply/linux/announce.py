"""Saying on the wire that addresses are here now. A frame may be lost, so it is said again (``AGAIN``)."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable

from polder.base.errors import PolderError
from polder.sdn.apply.linux.spaces import Spaces
from polder.sdn.render.linux.items import Announced
from polder.system.net import dumps
from polder.system.net.announcing import announcement, send_frames

AGAIN = (0.1, 0.4, 1.5, 5.0)
"""Seconds after which it is said once more: a switch may have lost its port, a machine may have been busy."""
log = logging.getLogger(__name__)


def announce(spaces: Spaces, items: Iterable[Announced]) -> None:
    """Tell each wire. That nobody could be told is no failure: who asks is answered."""
    grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in items:
        grouped[item.space, item.link].append(item.address)
    for (name, link), addresses in grouped.items():
        try:
            space = spaces.get(name)
            mac = dumps.link_named(space.route, link).mac
            frames = [announcement(mac, address) for address in sorted(addresses)]
            spaces.run_in(space, lambda link=link, frames=frames: send_frames(link, frames))  # type: ignore[misc]
        except (PolderError, OSError, ValueError) as error:
            log.warning("%s: %s were not announced: %s", link, ", ".join(sorted(addresses)), error)
