"""Addresses that a Service names itself (``spec.externalIPs``): which of them nodes leave out, told in a condition and an Event.

The nodes decide by the same rules (``sdn/compile/outside.py``): an address that means something inside the tenant already
stays what it
is, whoever may write Services.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network

from polder.api.core import Service
from polder.api.meta import Condition, ref_of
from polder.api.polder import Network, cidrs_of
from polder.base.clock import Clock, stamp
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.controllers.balancers import whole_condition
from polder.controllers.conditions import merged
from polder.controllers.reading import find
from polder.sdn.compile.outside import MOST, balancer_addresses, can_answer, canonical, cluster_addresses

SERVED = "polder.dev/ExternalIPsServed"
EXCLUDED = "ExternalIPExcluded"


def excluded(
    service: Service, networks: Iterable[Network], ranges: Iterable[str], others: Iterable[Service]
) -> list[str]:
    """A sentence for each address that is left out: for what it is already."""
    found: list[str] = []
    prefixes = [(text, f"network {ref_of(one).namespace}/{ref_of(one).name}") for one in networks if one.spec.router
                for text in cidrs_of(one.spec)] + [(text, "the tenant's service addresses") for text in ranges]  # fmt: skip
    owners = {address: ref_of(other) for other in others if ref_of(other) != ref_of(service)
              for address in (*cluster_addresses(other), *balancer_addresses(other))}  # fmt: skip
    for number, text in enumerate(service.spec.external_ips or ()):
        address = canonical(text)
        if number >= MOST:
            found.append(f"{text}: a Service has {MOST} at most")
        elif not address or not can_answer(address):
            found.append(f"{text} is nobody's on the outside")
        elif address in owners:
            found.append(f"{text} is an address of Service {owners[address].namespace}/{owners[address].name}")
        elif what := next((what for prefix, what in prefixes if _lies_in(address, prefix)), ""):
            found.append(f"{text} lies in {what}")
    return found


def _lies_in(address: str, prefix: str) -> bool:
    one, network = ip_address(address), ip_network(prefix, strict=False)
    return one.version == network.version and one in network


class ExternalIPController:
    """Reconciles the condition of a Service that names addresses; key: its reference. ``facts`` gives what a tenant has:
    networks,
    ranges of service addresses, Services.
    """

    def __init__(
        self,
        client: Client,
        clock: Clock,
        events: Recorder,
        facts: Callable[[Ref], tuple[list[Network], list[str], list[Service]]],
    ) -> None:
        self._client = client
        self._clock = clock
        self._events = events
        self._facts = facts

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. Raises ApiError."""
        service = await find(self._client, Service, ref)
        if service is None or service.metadata.deletion_timestamp is not None or not service.spec.external_ips:
            return None
        why = excluded(service, *self._facts(ref))
        said = Condition(
            type=SERVED, status="False" if why else "True", reason=EXCLUDED if why else "Served",
            message="; ".join(why) or "nodes answer for all of spec.externalIPs inside the tenant",
        )  # fmt: skip
        conditions = merged(service.status.conditions, [said], stamp(self._clock.now()))
        if conditions is None:
            return None
        status = {"conditions": [whole_condition(one) for one in conditions]}
        patch = {"metadata": {"uid": service.metadata.uid}, "status": status}
        await self._client.patch(Service, ref, patch, subresource="status")
        if why:
            self._events.event(service, "Warning", EXCLUDED, said.message)
        return None
