"""From pools of addresses to an address for a load balancer: pure."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from polder.api.addresses import (
    ADDRESSES_ANNOTATION,
    EVERY_TENANT_NAME,
    POOL_ANNOTATION,
    AddressPool,
    Span,
    external_name,
    span_of,
)
from polder.api.core import Service

BALANCER = "LoadBalancer"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a Service asks for: of which class, by name of the pool, by address. ``wrong`` says what cannot be read."""

    class_: str
    pool: str
    addresses: tuple[str, ...]
    wrong: str = ""


def is_balancer(service: Service | None) -> bool:
    """Whether it has, or wants, addresses on the outside."""
    return service is not None and service.spec.type == BALANCER and service.metadata.deletion_timestamp is None


def wish_of(service: Service) -> Wish:
    """What a Service asks for."""
    annotations = service.metadata.annotations or {}
    text = annotations.get(ADDRESSES_ANNOTATION) or service.spec.load_balancer_ip
    found, wrong = [], ""
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(str(ipaddress.ip_address(part if "%" not in part else "")))
        except ValueError:
            wrong = f"{part} is no IP address"
    if len({":" in address for address in found}) < len(found):
        wrong = "one address of each family may be asked for"
    return Wish(service.spec.load_balancer_class or "", annotations.get(POOL_ANNOTATION, ""), tuple(found), wrong)


def is_ours(wish: Wish, pools: Iterable[AddressPool]) -> bool:
    """Whether Services of this class are Polder's: all without one, and those for which there is a pool."""
    return not wish.class_ or any(pool.spec.load_balancer_class == wish.class_ for pool in pools)


def spans(pool: AddressPool) -> list[Span]:
    """The pool's addresses."""
    return [span_of(text) for text in pool.spec.addresses]


def is_open(pool: AddressPool, tenant: str) -> bool:
    """Whether a tenant may have addresses of a pool, which is not in deletion."""
    named = pool.spec.tenants or ()
    return pool.metadata.deletion_timestamp is None and (EVERY_TENANT_NAME in named or tenant in named)


def fitting(pools: Iterable[AddressPool], tenant: str, wish: Wish, family: str) -> list[AddressPool]:
    """The pools that may give an address of a family, in the order of names; by an address that is asked for, the one."""
    asked = next((a for a in wish.addresses if (":" in a) == (family == "IPv6")), "")
    version = 6 if family == "IPv6" else 4
    found = []
    for pool in sorted(pools, key=lambda p: p.metadata.name):
        if not is_open(pool, tenant) or pool.spec.load_balancer_class != wish.class_:
            continue
        if wish.pool and pool.metadata.name != wish.pool:
            continue
        if asked:
            if any(span.has(asked) for span in spans(pool)):
                found.append(pool)
        elif (wish.pool or pool.spec.auto_assign) and any(span.version == version for span in spans(pool)):
            found.append(pool)
    return found


def free(pool: AddressPool, family: str, uid: str, is_taken: Callable[[str], bool]) -> Iterator[str]:
    """The free addresses of a pool, from one on that the Service's UID decides: what was just given back is not the next."""
    version = 6 if family == "IPv6" else 4
    mine = [span for span in spans(pool) if span.version == version]
    total = sum(span.size for span in mine)
    if not total:
        return
    start = int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=16).digest(), "big") % total
    for number in range(total):
        address = _at(mine, (start + number) % total)
        if not is_taken(external_name(address)):
            yield address


def _at(mine: Sequence[Span], number: int) -> str:
    for span in mine:
        if number < span.size:
            return span.at(number)
        number -= span.size
    raise IndexError(number)


def capacity(pool: AddressPool) -> int:
    """How many addresses a pool has."""
    return sum(span.size for span in spans(pool))
