"""What a row costs its tenant: pure. The names of a ResourceQuota over all namespaces, and four of a tenant's own.

Not counted is what Polder writes on its own account (ports, addresses, routers), and what is no object of the API.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import orjson

from polder.api.kinds import PLATFORM_ONLY, POLDER_WRITTEN, STORED_FORM
from polder.api.quantity import Quantity
from polder.apiserver.projection import is_hidden
from polder.apiserver.quota_usage import ONE, Usage, concerns, counted, usage

OBJECTS: Final = "objects"
BYTES: Final = "objects.bytes"
"""What all objects together take in the store, each rounded up to ``BLOCK``."""
BLOCK: Final = 1024
_PLURALS: Final = {
    "namespaces": "namespaces",
    "customresourcedefinitions.apiextensions.k8s.io": "customresourcedefinitions",
}


def is_counted(resource: str) -> bool:
    """Whether rows of a resource are objects that a tenant answers for."""
    return (
        resource not in POLDER_WRITTEN
        and resource not in PLATFORM_ONLY
        and (resource in STORED_FORM or "." in resource)
    )


def names_of(resource: str, hard: list[str]) -> list[str]:
    """Of the limited names, those that objects of a resource count for."""
    own = {OBJECTS, BYTES, counted(resource), _PLURALS.get(resource, OBJECTS)}
    return [name for name in hard if name in own or concerns(resource, name)]


def row_total(resource: str, value: bytes | None, hard: list[str]) -> Usage:
    """What a row costs; none, and one that only says something of an object that is no row, cost nothing."""
    return {} if value is None or is_hidden(value) else total(resource, value, hard)


def total(resource: str, value: bytes, hard: list[str]) -> Usage:
    """What a row costs under the names that are limited."""
    names = names_of(resource, hard) if is_counted(resource) else []
    found: Usage = {}
    simple = {OBJECTS, counted(resource), _PLURALS.get(resource, OBJECTS)}
    for name in names:
        if name in simple:
            found[name] = ONE
        elif name == BYTES:
            found[name] = Quantity(Decimal(-(-len(value) // BLOCK) * BLOCK), "binary")
    rest = [name for name in names if name not in found]
    if rest:
        used = usage(resource, orjson.loads(value))
        found |= {name: used[name] for name in rest if name in used}
    return found
