"""The namespaces that items live in, opened on demand: a descriptor and two netlink sockets each, the least used closed."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from polder.base.errors import PolderError
from polder.sdn.render.linux.items import NODE
from polder.system.net import dumps, requests
from polder.system.net.losses import Losses
from polder.system.net.netlink import NETFILTER, NetlinkSocket
from polder.system.net.netns import (
    Netns,
    ensure_netns,
    inside,
    list_netns,
    open_netns,
    own_netns,
    remove_netns,
)
from polder.system.net.nfsets import NftSet, list_sets
from polder.system.net.nft import generation

_OPEN_AT_ONCE = 128
GONE_GROUP = 0x706F6C64
"""The group of links that are down and wait to be deleted together."""
T = TypeVar("T")
_log = logging.getLogger(__name__)


class SpaceError(PolderError):
    """A space cannot be used; the sentence names it."""


@dataclass(frozen=True, slots=True)
class KernelSettings:
    """``netns_dir`` holds the routers' namespaces; ``prefix`` begins the name of everything of ours in the node's namespace,
    and is in the comment of nftables tables. ``node_netns`` is the node's namespace, None the process's own. Where
    ``direct_vxlan`` is off, VXLAN devices are made in the node's namespace and moved (old kernels; found out by itself).
    """

    netns_dir: Path
    prefix: str
    node_netns: Path | None = None
    direct_vxlan: bool = True


@dataclass(slots=True)
class OpenSpace:
    """One namespace in use. ``indexes`` and ``sets`` remember what the kernel said, until the thing is replaced;
    ``generation`` is that of the rules as we left them, 0 before we looked. ``is_worn``: something went that we did not take.
    """

    name: str
    netns: Netns
    route: NetlinkSocket
    nft: NetlinkSocket
    losses: Losses
    indexes: dict[str, int] = field(default_factory=dict)
    sets: dict[tuple[str, str], dict[str, NftSet]] = field(default_factory=dict)
    generation: int = 0
    is_worn: bool = False

    def index(self, link: str) -> int:
        """The index of a link; NetlinkError (ENODEV) where there is none."""
        known = self.indexes.get(link)
        if known is None:
            known = self.indexes[link] = dumps.link_named(self.route, link).index
        return known

    def table_sets(self, family: str, table: str) -> dict[str, NftSet]:
        """The sets of a table by name."""
        known = self.sets.get((family, table))
        if known is None:
            known = {one.name: one for one in list_sets(self.nft, family, table)}
            self.sets[family, table] = known
        return known

    def close(self) -> None:
        """Let go, so that the namespace can end."""
        self.route.close()
        self.nft.close()
        self.losses.close()
        self.netns.close()


class Spaces:
    """All spaces of one node. Used by one worker thread at a time, which is moved between namespaces by it."""

    def __init__(self, settings: KernelSettings) -> None:
        self.settings = settings
        self._home = own_netns()
        self._open: OrderedDict[str, OpenSpace] = OrderedDict()
        where = settings.node_netns
        self.node = self._opened(NODE, open_netns(where) if where else own_netns())

    def names(self) -> list[str]:
        """The routers' namespaces by name, the unfinished too."""
        return list_netns(self.settings.netns_dir)

    def path(self, name: str) -> Path:
        """The file of a router's namespace."""
        return self.settings.netns_dir / name

    def get(self, name: str) -> OpenSpace:
        """A space, opened if need be. NetnsError where it does not exist."""
        if name == NODE:
            return self.node
        found = self._open.get(name)
        if found is None:
            found = self._open[name] = self._opened(name, open_netns(self.path(name)))
            while len(self._open) > _OPEN_AT_ONCE:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(name)
        return found

    def ensure(self, name: str, owner: str) -> None:
        """Have the namespace, its loopback link up, the owner noted there."""
        if not name or "/" in name or name.startswith("."):
            raise SpaceError(f"space {name!r}: not usable as a file name")
        if ensure_netns(self.path(name)):
            self.forget(name)
        self.get(name).route.call(requests.change_link(1, up=True, alias=owner))

    def remove(self, name: str) -> None:
        """Delete everything in the namespace, then its name."""
        try:
            space = self.get(name)
        except PolderError as exc:
            _log.info("%s holds no namespace, as a crash or a reboot leaves it: %s", self.path(name), exc)
        else:
            members = [link.index for link in dumps.links(space.route) if link.name != "lo"]
            condemn(space, members)
            if members:
                space.route.call(requests.del_group(GONE_GROUP))
        self.forget(name)
        remove_netns(self.path(name))

    def heed(self) -> None:
        """Before anything is changed here: what went until now was taken by others."""
        for space in (self.node, *self._open.values()):
            space.is_worn = space.losses.drain() or space.is_worn

    def unheed(self, names: Iterable[str], *, seen: bool = False) -> None:
        """What went from these spaces since ``heed`` was taken by us; where all was ``seen``, nothing is missing that is not
        known."""
        for name in names:
            space = self.node if name == NODE else self._open.get(name)
            if space is not None:
                space.losses.drain()
                space.is_worn = space.is_worn and not seen

    def noted(self, names: Iterable[str]) -> None:
        """The rules of these spaces, as far as they are open, are as we left them or have just been seen."""
        for name in names:
            space = self.node if name == NODE else self._open.get(name)
            if space is not None:
                space.generation = generation(space.nft)

    def meddled(self) -> bool:
        """Whether somebody else changed the rules of an open space since, or took links, addresses, routes or neighbours away."""
        self.heed()
        return any(space.is_worn for space in (self.node, *self._open.values())) or any(
            space.generation and generation(space.nft) != space.generation
            for space in (self.node, *self._open.values())
        )

    def forget(self, name: str) -> None:
        """Close what is open of a space."""
        known = self._open.pop(name, None)
        if known:
            known.close()

    def run_in(self, space: OpenSpace, what: Callable[[], T]) -> T:
        """Do ``what`` with the calling thread inside the space."""
        with inside(space.netns, self._home):
            return what()

    def socket_in(self, netns: Netns) -> NetlinkSocket:
        """A socket for links, addresses and routes of any namespace; the caller closes it."""
        with inside(netns, self._home):
            return NetlinkSocket()

    def close(self) -> None:
        """Let go of everything."""
        for name in list(self._open):
            self.forget(name)
        self.node.close()
        self._home.close()

    def _opened(self, name: str, netns: Netns) -> OpenSpace:
        try:
            with inside(netns, self._home):
                losses = Losses(neighbours=name != NODE)
                return OpenSpace(name, netns, NetlinkSocket(), NetlinkSocket(NETFILTER), losses)
        except BaseException:
            netns.close()
            raise


def condemn(space: OpenSpace, indexes: list[int]) -> None:
    """Links down at once, and into the group that is deleted together. A link that is not there is no error."""
    dead = set(indexes)
    space.route.batch([requests.change_link(at, up=False, more=requests.set_group(GONE_GROUP)) for at in indexes])
    space.indexes = {name: at for name, at in space.indexes.items() if at not in dead}
