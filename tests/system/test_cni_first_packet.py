"""The first packet after ADD arrives: a link that is up carries nothing until the kernel's link watch has run."""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Event

import pytest

from tests.system.lab import Lab

pytestmark = pytest.mark.system


def busy(stop: Event) -> None:
    while not stop.is_set():
        sum(range(10_000))


async def test_the_first_packet_of_every_pod_arrives_on_a_busy_machine(lab: Lab) -> None:
    lab.tenant("acme", 7, {"a": "10.0.1.0/24"})
    lab.pod("acme", "first", "n1", "10.0.1.5")
    await lab.deploy()
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    workers = [context.Process(target=busy, args=(stop,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    lost = []
    try:
        for number in range(10, 60):
            pod = lab.pod("acme", f"p{number}", "n1", f"10.0.1.{number}")
            await lab.deploy()
            if not pod.ping("10.0.1.1", 0.8):  # a lost question for the gateway's MAC is repeated after 1 s only
                lost.append(number)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert lost == []
