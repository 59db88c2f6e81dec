"""Counts and latencies of requests, and the server's gauges, as Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from polder.api.kinds import VERBS
from polder.apiserver.requestinfo import ParsedPath

BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds in seconds."""
KNOWN_VERBS = frozenset({*VERBS, "head", "post", "put"})
UNKNOWN = frozenset({401, 403, 404})
"""Answers to requests that may name anything."""


class Metrics:
    """No label names a tenant: metrics must not tell one tenant of another."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._served: Counter[str] = Counter()

    def observe(self, parsed: ParsedPath, status: int, seconds: float) -> None:
        """Counts one request. What was refused before it was known to name a resource shares one label, and so do made-up
        methods, so that callers cannot grow the table.
        """
        resource = parsed.resource if status not in UNKNOWN else ""
        self._requests[parsed.verb if parsed.verb in KNOWN_VERBS else "other", resource, status] += 1
        if parsed.verb == "watch" or not resource:
            return
        self._served[parsed.verb] += 1
        self._seconds[parsed.verb] += seconds  # type: ignore[assignment]  # a Counter holds floats as well
        for bound in BUCKETS:
            if seconds <= bound:
                self._buckets[parsed.verb, bound] += 1
                break

    def text(self, gauges: Mapping[str, int]) -> str:
        """All of it."""
        lines = ["# TYPE apiserver_request_total counter"]
        for (verb, resource, code), count in sorted(self._requests.items()):
            labels = f'verb="{_escape(verb)}",resource="{_escape(resource)}",code="{code}"'
            lines.append(f"apiserver_request_total{{{labels}}} {count}")
        lines.append("# TYPE apiserver_request_duration_seconds histogram")
        for verb, count in sorted(self._served.items()):
            lines += self._histogram(verb, count)
        for name, value in gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        return "\n".join(lines) + "\n"

    def _histogram(self, verb: str, count: int) -> list[str]:
        name, label = "apiserver_request_duration_seconds", f'verb="{_escape(verb)}"'
        lines, total = [], 0
        for bound in BUCKETS:
            total += self._buckets[verb, bound]
            lines.append(f'{name}_bucket{{{label},le="{bound:g}"}} {total}')
        lines.append(f'{name}_bucket{{{label},le="+Inf"}} {count}')
        lines.append(f"{name}_sum{{{label}}} {self._seconds[verb]:.6f}")
        lines.append(f"{name}_count{{{label}}} {count}")
        return lines


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
