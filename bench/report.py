"""Results as rows, a table for people, and the page docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import random
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
RESAMPLES = 2000


@dataclass(frozen=True)
class Result:
    """One figure. ``goal`` is words; ``met`` None where there is none."""

    what: str
    figure: str
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Section:
    """The results of one benchmark, and what must be known to read them."""

    title: str
    name: str
    notes: str
    results: Sequence[Result]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median of the paired ratios ours/theirs and its 95 % bootstrap interval."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return statistics.median(ratios), medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975)]


def machine() -> str:
    """The machine in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    containerd = subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=False).stdout.split()
    runtime = containerd[2] if len(containerd) > 2 else "none"
    return (
        f"{os.cpu_count()} cores, {memory} GiB, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, containerd {runtime}"
    )


def table(results: Sequence[Result]) -> str:
    """Markdown."""
    marks = {True: "yes", False: "**no**", None: ""}
    lines = ["| What | Measured | Goal | Met |", "|---|---|---|---|"]
    lines += [f"| {r.what} | {r.figure} | {r.goal} | {marks[r.met]} |" for r in results]
    return "\n".join(lines)


def write(sections: Sequence[Section]) -> None:
    """Replaces the page."""
    parts = [
        "# Benchmarks",
        "",
        f"Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine()}. Every comparison is paired and interleaved in one "
        "run; figures are medians, ratios have 95 % bootstrap intervals. The machine is a shared virtual one: absolute times "
        "move, ratios hold.",
    ]
    for one in sections:
        parts += ["", f"## {one.title}", "", f"`python -m bench {one.name}`", ""]
        parts += [one.notes, ""] if one.notes else []
        parts.append(table(one.results))
    PAGE.write_text("\n".join(parts) + "\n")
