"""Whether CNI ADD and DEL stay as fast when a tenant has many ports, all of them attached on the one node."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from bench.place import REST, Place, timed
from bench.report import Result, median, ratio_interval

TITLE = "CNI from 10 to 1,000 ports"
NOTES = """\
Three clusters alike, each a server and a node with a tenant of so many pods attached; calls as above (*prepared*), which take
turns in random order. Each pod leaves again, so the numbers stay."""

SIZES = (10, 100, 1000)
ROUNDS, WARM = 30, 3
AT_ONCE = 25
GOAL = 1.2

Times = dict[tuple[str, int], list[float]]


async def _fill(place: Place, count: int) -> None:
    for start in range(0, count, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, count))
        boxes = await asyncio.gather(*(place.pod(f"there{number}") for number in numbers))
        await asyncio.gather(*(asyncio.to_thread(timed, place.call(box, "ADD")) for box in boxes))


async def _round(places: dict[int, Place], number: int, order: Iterable[int], times: Times) -> None:
    boxes = {size: await place.pod(f"p{number}") for size, place in places.items()}
    for command in ("ADD", "DEL"):
        for size in order:
            await asyncio.sleep(REST)
            took, _ = timed(places[size].call(boxes[size], command))
            times.setdefault((command, size), []).append(took)
    for size, place in places.items():
        await place.leave(boxes[size])


async def _measure() -> Times:
    places: dict[int, Place] = {}
    times: Times = {}
    chance = random.Random(3)
    try:
        for size in SIZES:
            places[size] = await Place.open()
            await _fill(places[size], size)
        for number in range(WARM + ROUNDS):
            if number == WARM:
                times.clear()
            await _round(places, number, chance.sample(SIZES, len(SIZES)), times)
    finally:
        for place in places.values():
            await place.close()
    return times


def _rows(command: str, times: Times) -> list[Result]:
    least, most = SIZES[0], SIZES[-1]
    figures = ", ".join(f"{median(times[command, size]):.1f}" for size in SIZES)
    middle, low, high = ratio_interval(times[command, most], times[command, least])
    return [
        Result(f"{command} with {', '.join(f'{size:,}' for size in SIZES)} ports", f"{figures} ms"),
        Result(
            f"{command}: {most:,} ports against {least:,}",
            f"ratio {middle:.2f} ({low:.2f} to {high:.2f}, n={ROUNDS})",
            f"≤ {GOAL}",
            high <= GOAL,
        ),
    ]


def results() -> list[Result]:
    times = asyncio.run(_measure())
    return _rows("ADD", times) + _rows("DEL", times)
