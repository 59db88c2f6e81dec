"""A machine that is gone is noticed within a second, one whose agent is gone is not, and one that never answered stays as it
is."""

from __future__ import annotations

import time

import pytest

from polder.base.clock import SystemClock
from polder.controllers.pulse import EVERY, Pulse
from polder.system.net import requests
from tests.system.lab import UNDERLAY, Lab

pytestmark = pytest.mark.system


def rounds(lab: Lab, pulse: Pulse, seconds: float, until: str = "") -> float:
    """Rounds as the server takes them, from the machine outside; after how long the node ``until`` has changed."""
    begun = time.monotonic()
    was = pulse.is_lost(until)
    while time.monotonic() < begun + seconds:
        lab.outside.run(pulse.look)
        if until and pulse.is_lost(until) != was:
            break
        time.sleep(EVERY)
    return time.monotonic() - begun


async def test_a_dead_machine_is_noticed_within_a_second_and_so_is_its_return(lab: Lab) -> None:
    told: list[str] = []
    addresses = {"n1": f"{UNDERLAY}.1", "n2": f"{UNDERLAY}.2", "silent": f"{UNDERLAY}.77"}
    holders = {"n1", "n2", "silent"}
    pulse = Pulse(lambda: holders, lambda name: addresses.get(name, ""), SystemClock())
    pulse.on_change(told.append)
    pulse.on_change(holders.discard)  # its addresses go elsewhere; it is asked on
    try:
        rounds(lab, pulse, 1.5)
        assert told == [], "machines that answer, and one that never did"
        node = lab.nodes["n1"].host
        at = node.link("eth0").index
        node.route.call(requests.change_link(at, up=False))
        assert rounds(lab, pulse, 3, "n1") < 0.8
        assert told == ["n1"] and pulse.is_lost("n1") and not pulse.is_lost("n2")
        node.route.call(requests.change_link(at, up=True))
        assert rounds(lab, pulse, 5, "n1") < 3
        assert told == ["n1", "n1"] and not pulse.is_lost("n1")
    finally:
        pulse.close()
