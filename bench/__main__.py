"""``python -m bench [NAME …]``: runs all benchmarks, or the named ones; all of them renew docs/benchmarks.md."""

from __future__ import annotations

import sys
from importlib import import_module

from bench import report

NAMES = (
    "server",
    "store",
    "api",
    "fairness",
    "tenants",
    "crowd",
    "cni",
    "ports",
    "presence",
    "datapath",
    "services",
    "scheduling",
    "podstart",
    "pods500",
    "policy",
    "dns",
)


def main() -> int:
    asked = sys.argv[1:] or list(NAMES)
    unknown = [name for name in asked if name not in NAMES]
    if unknown:
        print(f"unknown benchmark {unknown[0]}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    sections = []
    for name in asked:
        print(f"== {name}", file=sys.stderr)
        module = import_module(f"bench.{name}")
        results = module.results()
        print(report.table(results))
        sections.append(report.Section(module.TITLE, name, getattr(module, "NOTES", ""), results))
    if asked == list(NAMES):
        report.write(sections)
    return 0


if __name__ == "__main__":
    sys.exit(main())
