"""Which keys of a node are good, and where its machine is: a row per node that joined or renewed its certificate."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from polder.base.ids import ROOT
from polder.store.protocol import Entry, Key, Prefix, Put, Store

RESOURCE = "internal:agents"
"""A resource that no path and no custom definition can spell."""
ROWS = Prefix(RESOURCE, ROOT)


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """``keys`` are marks of public keys (``ClientName.key``), the one signed last first; ``token`` is the identifier of the
    token that the node joined with; ``since`` is a time stamp.
    """

    keys: tuple[str, ...]
    addresses: tuple[str, ...]
    since: str
    token: str = ""


def record_key(node: str) -> Key:
    """Where the row of a node is."""
    return Key(RESOURCE, ROOT, "", node)


def read_record(entry: Entry) -> NodeRecord:
    """What a row says."""
    raw = orjson.loads(entry.value)
    return NodeRecord(tuple(raw["keys"]), tuple(raw["addresses"]), raw["since"], raw.get("token", ""))


def put_record(node: str, record: NodeRecord, expect: int | None) -> Put:
    """Writes the row."""
    return Put(record_key(node), orjson.dumps(record), expect)


async def is_good(store: Store, node: str, key: str) -> bool:
    """Whether a node's certificate for this key counts: the key is of those signed last, or none was signed here yet."""
    entry = await store.get(record_key(node))
    return entry is None or key in read_record(entry).keys
