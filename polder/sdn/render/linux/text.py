"""Canonical text of items: one line each, sorted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from polder.sdn.render.linux.items import Item
from polder.sdn.topology.lines import dump_line, dump_lines, parse_line

TYPES: dict[str, type] = {kind.__name__: kind for kind in get_args(Item)}


def dump_item(item: Item) -> str:
    """One line without its end."""
    return dump_line(item)


def parse_item(line: str) -> Item:
    """The inverse of dump_item. Raises LineError."""
    item: Item = parse_line(line, TYPES)
    return item


def dump(items: Iterable[Item]) -> str:
    """Sorted lines, each ended by a newline."""
    return dump_lines(items)


def parse(text: str) -> frozenset[Item]:
    """The inverse of dump. Raises LineError."""
    return frozenset(parse_item(line) for line in text.splitlines() if line)
