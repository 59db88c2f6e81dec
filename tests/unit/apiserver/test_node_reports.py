"""Asking nodes what they use: one question at a time, answers that count for a moment, nodes that do not answer."""

from __future__ import annotations

import asyncio

import msgspec

from polder.api.meta import Raw
from polder.api.resourcemetrics import NodeUsage, PodUsage, Usage, duration, node_metrics, pod_metrics
from polder.apiserver import node_reports
from polder.apiserver.node_reports import NodeReports
from polder.base.clock import SystemClock
from polder.base.errors import RetryableError

REPORT = NodeUsage(1000.0, 15.0, Usage(5, 6), {"u1": PodUsage(1000.0, 15.0, {"c": Usage(7, 8)})})


class Late(SystemClock):
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at


class Reply:
    """A node's side of one question."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.fate = ""

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return self.pieces.pop(0) if self.pieces else b""

    async def end(self) -> None:
        self.fate = "ended"

    async def reset(self, reason: str) -> None:
        self.fate = reason


class Nodes:
    """What each node answers; None: it is not connected."""

    def __init__(self, **answers: list[bytes] | None) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.replies: list[Reply] = []

    async def open(self, node: str, header: Raw) -> Reply:
        assert header == {"kind": "usage"}
        self.asked.append(node)
        pieces = self.answers[node]
        if pieces is None:
            raise RetryableError("not connected", after=1.0)
        self.replies.append(Reply(*pieces))
        return self.replies[-1]


BODY = msgspec.json.encode(REPORT)


async def test_an_answer_is_shared_by_all_who_ask_and_counts_for_a_moment() -> None:
    nodes, clock = Nodes(a=[BODY[:30], BODY[30:]], b=[BODY]), Late()
    reports = NodeReports(nodes.open, clock)
    first, second = await asyncio.gather(reports.of(["a", "b", "a"]), reports.of(["a"]))
    assert first == {"a": REPORT, "b": REPORT} and second == {"a": REPORT}
    assert sorted(nodes.asked) == ["a", "b"] and {r.fate for r in nodes.replies} == {"ended"}
    clock.at = node_reports.FRESH - 0.1
    assert await reports.of(["a"]) == {"a": REPORT} and len(nodes.asked) == 2
    clock.at = node_reports.FRESH + 0.1
    assert await reports.of(["a"]) == {"a": REPORT} and len(nodes.asked) == 3


async def test_nodes_without_an_answer_are_left_out_and_names_that_nobody_has_are_not_kept() -> None:
    nodes = Nodes(bad=[b"{"], away=None, good=[BODY])
    reports = NodeReports(nodes.open, Late())
    assert await reports.of(["bad", "away", "good"]) == {"good": REPORT}
    assert await reports.of(["bad", "away", "good"]) == {"good": REPORT}
    assert nodes.asked.count("bad") == 1, "one that talks nonsense is not asked for each request"
    assert nodes.asked.count("away") == 2
    assert "away" not in reports._known


async def test_an_answer_without_end_is_given_up() -> None:
    endless = Nodes(a=[b" " * node_reports.LARGEST, b" "])
    assert await NodeReports(endless.open, Late()).of(["a"]) == {}
    assert endless.replies[0].fate == "given up"


async def test_what_is_kept_has_a_bound_and_goes_with_time() -> None:
    names = [f"n{number}" for number in range(node_reports.KEPT + 8)]
    nodes, clock = Nodes(**{name: [BODY] for name in names}), Late()
    reports = NodeReports(nodes.open, clock)
    assert len(await reports.of(names)) == len(names)
    assert len(reports._known) == node_reports.KEPT
    clock.at = node_reports.FRESH + 1
    await reports.of(names[:1])
    assert list(reports._known) == names[:1]


def test_amounts_and_durations_are_written_as_upstream_does() -> None:
    made = pod_metrics("ns", "p", {"a": "b"}, REPORT.pods["u1"])
    assert made["containers"] == [{"name": "c", "usage": {"cpu": "7n", "memory": "0Ki"}}]
    assert made["timestamp"] == "1970-01-01T00:16:40Z" and made["window"] == "15s"
    assert made["metadata"]["labels"] == {"a": "b"} and made["metadata"]["namespace"] == "ns"
    assert node_metrics("n", {}, (0.0, 60.5), Usage(0, 4096))["usage"] == {"cpu": "0", "memory": "4Ki"}
    assert [duration(s) for s in (0.25, 15, 60.5, 125)] == ["0.25s", "15s", "1m0.5s", "2m5s"]
