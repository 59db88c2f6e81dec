"""Which pools may give an address, which address, and whom a free one wakes."""

from __future__ import annotations

import pytest

from polder.api.addresses import AddressPool, AddressPoolSpec, external_name, span_of
from polder.api.core import Service, ServiceSpec, ServiceStatus
from polder.api.meta import TENANT_ANNOTATION, Condition, ObjectMeta
from polder.controllers.balancers import ASSIGNED, WOKEN, a_few_of_each, is_wanting
from polder.controllers.pools import capacity, fitting, free, wish_of


def pool(
    name: str, *addresses: str, tenants: tuple[str, ...] = ("*",), auto: bool = True, class_: str = ""
) -> AddressPool:
    spec = AddressPoolSpec(
        addresses=list(addresses), tenants=list(tenants), auto_assign=auto, load_balancer_class=class_
    )
    return AddressPool(metadata=ObjectMeta(name=name), spec=spec)


def service(
    annotations: dict[str, str] | None = None, tenant: str = "t", status: ServiceStatus | None = None, **spec: str
) -> Service:
    meta = ObjectMeta(name="s", namespace="n", annotations={TENANT_ANNOTATION: tenant, **(annotations or {})})
    return Service(metadata=meta, spec=ServiceSpec(type="LoadBalancer", **spec), status=status or ServiceStatus())  # type: ignore[arg-type]  # text fields


def names(found: list[AddressPool]) -> list[str]:
    return [one.metadata.name for one in found]


@pytest.mark.parametrize(
    ("text", "first", "last", "size"),
    [
        ("192.0.2.0/29", "192.0.2.1", "192.0.2.6", 6), ("192.0.2.0/31", "192.0.2.0", "192.0.2.1", 2),
        ("192.0.2.7", "192.0.2.7", "192.0.2.7", 1), ("192.0.2.5-192.0.2.9", "192.0.2.5", "192.0.2.9", 5),
        ("2001:db8::/126", "2001:db8::", "2001:db8::3", 4),
    ],
)  # fmt: skip
def test_an_entry_is_a_span(text: str, first: str, last: str, size: int) -> None:
    span = span_of(text)
    assert (span.at(0), span.at(span.size - 1), span.size) == (first, last, size)
    assert span.has(last) and not span.has("192.0.3.1")


def test_every_free_address_is_found_once_and_not_always_from_the_beginning() -> None:
    one = pool("p", "192.0.2.0/29", "192.0.2.20-192.0.2.21", "2001:db8::/64")
    assert capacity(one) == 8 + 2**64
    taken = {external_name("192.0.2.3")}
    for uid in ("a", "b", "c"):
        found = list(free(one, "IPv4", uid, taken.__contains__))
        assert sorted(found) == sorted([*(f"192.0.2.{n}" for n in (1, 2, 4, 5, 6, 20, 21))])
    assert len({next(free(one, "IPv4", f"{n}", taken.__contains__)) for n in range(40)}) > 3
    assert next(free(one, "IPv6", "a", taken.__contains__)).startswith("2001:db8:")


def test_pools_are_for_tenants_classes_and_wishes() -> None:
    pools = [pool("b", "192.0.2.0/29"), pool("a", "198.51.100.0/29", tenants=("t",)), pool("x", "10.1.1.0/29", tenants=("u",)),
             pool("shy", "203.0.113.0/29", auto=False), pool("gold", "10.2.2.0/29", class_="e.com/gold"),
             pool("six", "2001:db8::/120")]  # fmt: skip
    assert names(fitting(pools, "t", wish_of(service()), "IPv4")) == ["a", "b"]
    assert names(fitting(pools, "u", wish_of(service()), "IPv4")) == ["b", "x"]
    assert names(fitting(pools, "t", wish_of(service()), "IPv6")) == ["six"]
    assert names(fitting(pools, "t", wish_of(service({"polder.dev/address-pool": "shy"})), "IPv4")) == ["shy"]
    assert names(fitting(pools, "t", wish_of(service(load_balancer_ip="203.0.113.3")), "IPv4")) == ["shy"]
    assert names(fitting(pools, "t", wish_of(service(load_balancer_ip="10.1.1.3")), "IPv4")) == []
    assert names(fitting(pools, "t", wish_of(service(load_balancer_class="e.com/gold")), "IPv4")) == ["gold"]


def test_a_wish_is_read() -> None:
    both = wish_of(service({"polder.dev/load-balancer-ips": "192.0.2.1, 2001:DB8::1"}))
    assert (both.addresses, both.wrong) == (("192.0.2.1", "2001:db8::1"), "")
    assert "each family" in wish_of(service({"polder.dev/load-balancer-ips": "192.0.2.1,192.0.2.2"})).wrong


def test_a_free_address_wakes_a_few_of_each_tenant() -> None:
    assigned = ServiceStatus(conditions=[Condition(type=ASSIGNED, status="True")])
    assert is_wanting(service()) and not is_wanting(service(status=assigned))
    woken = a_few_of_each([*(service(tenant="many") for _ in range(1000)), service(tenant="one")])
    assert len(woken) == WOKEN + 1 and woken[-1].tenant == "one"


def test_an_address_with_a_zone_is_none() -> None:
    """Python takes it for another one than the same without, and any text may be the zone."""
    wish = wish_of(service({"polder.dev/load-balancer-ips": "2001:db8::7%any text"}))
    assert (wish.addresses, wish.wrong) == ((), "2001:db8::7%any text is no IP address")
