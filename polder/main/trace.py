"""`polder trace acme/default/client → web:80`."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict

from polder.cli.output import Output
from polder.main.hostnet import cluster_of
from polder.main.inspect import look
from polder.sdn.topology.text import parse as parse_topology
from polder.sdn.topology.trace import Answer, answer, parse
from polder.sdn.topology.types import Part


def command(args: argparse.Namespace) -> int:
    """Prints which rule decides at either end; exit code 1 if policies drop any of it."""
    question = parse(" ".join(args.question))
    found = asyncio.run(look(cluster_of(args.state), question.tenant, ""))
    topology = parse_topology(next(iter(found.values())).topology)
    parts: list[Part] = [*topology.ports, *topology.policies, *topology.groups, *topology.vips]
    answers = answer(question, parts)
    out = Output()
    if args.output == "json":
        out.json([{"allowed": one.allowed, **asdict(one)} for one in answers])
    for one in answers if args.output != "json" else ():
        _show(out, one)
    return int(not all(one.allowed for one in answers))


def _show(out: Output, one: Answer) -> None:
    port = f" port {one.packet.port}" if one.packet.port else ""
    verdict = "allowed" if one.allowed else "dropped"
    out.heading(
        f"{verdict}: {one.packet.protocol} {one.packet.source} → {one.packet.destination}{port} ({one.destination})"
    )
    for decision in one.decisions:
        for passed in decision.passed:
            out.line(f"  {decision.direction}: passed on by {passed}")
        out.line(f"  {decision.direction}: {'allowed' if decision.allowed else 'dropped'}: {decision.reason}")
