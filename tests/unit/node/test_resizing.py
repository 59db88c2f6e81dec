"""What a pod is granted at first sight: new ones need room, those that run or have ended do not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from polder.api.core import Pod
from polder.base.clock import SystemClock
from polder.node.pods.configs import Places
from polder.node.pods.resizing import Resizing
from polder.node.pods.room import Room
from tests.unit.node.podkit import container, pod, view


def sized(cpu: str, phase: str = "Pending") -> Pod:
    resources = {"requests": {"cpu": cpu}}
    made = pod({"containers": [{"name": "a", "image": "i", "resources": resources}]})
    return msgspec.structs.replace(made, status=msgspec.structs.replace(made.status, phase=phase))


def resizing(tmp_path: Path, room: Room, uid: str = "u-1") -> Resizing:
    places = Places(tmp_path, tmp_path, "n1")
    ctx: Any = SimpleNamespace(
        room=room,
        places=places,
        clock=SystemClock(),
        recorder=SimpleNamespace(event=print),
        host_ports=SimpleNamespace(take=lambda uid, ports, sure: True),
    )
    return Resizing(ctx, uid, lambda: None)


def test_a_new_pod_needs_room(tmp_path: Path) -> None:
    room = Room({"cpu": 1000})
    room.give("other", {"cpu": 800}, "Burstable")
    one = resizing(tmp_path, room)
    one.granted(sized("300m"), view(sandboxes=[]))
    assert one.refused == (
        "OutOfcpu",
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 300, used: 800, capacity: 1000",
    )
    assert room.burstable_cpu == 800, "it takes nothing"


def test_what_runs_keeps_its_place_and_what_has_ended_takes_none(tmp_path: Path) -> None:
    room = Room({"cpu": 1000})
    room.give("other", {"cpu": 800}, "Burstable")
    running = resizing(tmp_path, room)
    running.granted(sized("300m", "Running"), view(container("a")))
    assert running.refused is None and room.burstable_cpu == 1100
    ended = resizing(tmp_path, room, "u-2")
    ended.granted(sized("300m", "Succeeded"), view(sandboxes=[]))
    assert ended.refused is None and room.burstable_cpu == 1100


def test_a_node_under_pressure_turns_away_what_is_new(tmp_path: Path) -> None:
    room = Room({"cpu": 1000}, lambda: frozenset({"MemoryPressure"}))
    idle = msgspec.structs.replace(sized("1"), spec=pod().spec)
    one = resizing(tmp_path, room)
    one.granted(idle, view(sandboxes=[]))
    assert one.refused == ("Evicted", "Pod was rejected: The node had condition: [MemoryPressure]. ")
    asks = resizing(tmp_path, room, "u-2")
    asks.granted(sized("100m"), view(sandboxes=[]))
    assert asks.refused is None
