"""CNI ADD and DEL as a runtime calls them, against Debian's `bridge` + `host-local`."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.place import REST, Call, Place, timed
from bench.report import Result, median, ratio_interval
from tests.system.lab import Host
from tests.system.site import Sandbox

TITLE = "CNI against `bridge` + `host-local`"
NOTES = """\
A call is timed from starting the plugin's program to its end, in the node's namespace, the pod's namespace made before. The
plugins take turns in random order; before each ADD, also one of `bridge`, a pod is made and bound to the node, as before a
runtime's call, and after it the pod pings its gateway. Polder's server (SQLite, synchronous=FULL) and the agent's network part
are processes of their own.

*Prepared* is what happens in production: the agent saw the pod bound and has claimed its address in the API (Port and Address
created, Port completed: three durable writes) before the runtime calls. Inside ADD are the note on the node's disk of who uses
the Port, synced before ADD answers, and the datapath; the API hears of the sandbox right afterwards. *Cold* is ADD before all
that: the three durable writes at the server, one after the other, are inside too. `host-local` writes a file and does not sync
it; `bridge` is configured with `isGateway` and without `ipMasq`, which would add its calls of iptables. Polder's DEL returns when
its note is synced and the port passes no packet more; the link is deleted right afterwards, together with others."""

ROUNDS, WARM = 40, 3
GOAL = 0.5
SOON = 0.03
"""Seconds from a pod's being ready for its sandbox to ADD: containerd makes the sandbox's namespace in this time."""
BRIDGE = Path("/usr/lib/cni/bridge")
KINDS = ("prepared", "cold", "bridge")


def peer_call(place: Place, box: Sandbox, command: str) -> Call:
    """A call of Debian's plugins, on the room's second node."""
    config = {
        "cniVersion": "1.0.0",
        "name": "peer",
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.0.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(place.server.state / "host-local"),
        },
    }
    environment = {**box.environment(command), "CNI_PATH": str(BRIDGE.parent)}
    return Call(place.lab.nodes["n2"].host, BRIDGE, environment, msgspec.json.encode(config))


@dataclass
class Times:
    """Milliseconds of each kind, round by round."""

    add: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    delete: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    late: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    """Pods whose first packet after ADD had no answer."""


def reaches(host: Host, gateway: str) -> bool:
    """Whether the first packet was answered. RuntimeError where none is within three seconds."""
    if host.ping(gateway):
        return True
    if not host.ping(gateway, 3.0):
        raise RuntimeError(f"{host.name} does not reach its gateway {gateway}")
    return False


@dataclass
class Contest:
    """The rounds."""

    place: Place
    chance: random.Random = field(default_factory=lambda: random.Random(2))
    times: Times = field(default_factory=Times)

    async def round(self, number: int) -> None:
        boxes: dict[str, Sandbox] = {}
        for kind in self._shuffled():
            wishes = {"cold": "yes"} if kind == "cold" else {}
            boxes[kind] = await self.place.pod(f"{kind}{number}", **wishes)
            await asyncio.sleep(SOON)
            took, answer = timed(self._call(kind, boxes[kind], "ADD"))
            self.times.add[kind].append(took)
            self.times.late[kind] += not reaches(boxes[kind].host, answer["ips"][0]["gateway"])
        for kind in self._shuffled():
            await asyncio.sleep(REST)
            took, _ = timed(self._call(kind, boxes[kind], "DEL"))
            self.times.delete[kind].append(took)
            if boxes[kind].host.ping("10.0.0.1", 0.02):
                raise RuntimeError(f"{kind}: packets pass after DEL")
        for box in boxes.values():
            await self.place.leave(box)

    def _call(self, kind: str, box: Sandbox, command: str) -> Call:
        return peer_call(self.place, box, command) if kind == "bridge" else self.place.call(box, command)

    def _shuffled(self) -> list[str]:
        return self.chance.sample(KINDS, len(KINDS))


async def _measure() -> Times:
    place = await Place.open(machines=2)
    try:
        contest = Contest(place)
        for number in range(WARM + ROUNDS):
            if number == WARM:
                contest.times = Times()
            await contest.round(number)
        return contest.times
    finally:
        await place.close()


def _rows(command: str, times: dict[str, list[float]], kind: str) -> list[Result]:
    theirs = times["bridge"]
    middle, low, high = ratio_interval(times[kind], theirs)
    return [
        Result(
            f"{command}, {kind}",
            f"{median(times[kind]):.1f} ms against {median(theirs):.1f} ms: ratio {middle:.2f} "
            f"({low:.2f} to {high:.2f}, n={len(theirs)})",
            f"≤ {GOAL}",
            high <= GOAL,
        )
    ]


def results() -> list[Result]:
    times = asyncio.run(_measure())
    return (
        _rows("ADD", times.add, "prepared") + _rows("ADD", times.add, "cold") + _rows("DEL", times.delete, "prepared")
    ) + [
        Result(
            "pods whose first packet after ADD was lost",
            f"{times.late['prepared'] + times.late['cold']} of {2 * ROUNDS}, `bridge` {times.late['bridge']} of {ROUNDS}",
            "0",
            times.late["prepared"] + times.late["cold"] == 0,
        )
    ]
