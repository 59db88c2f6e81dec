"""`polder image import FILE`."""

from __future__ import annotations

import argparse
import asyncio

from polder.cli.output import Output
from polder.main.hostnet import cluster_of
from polder.main.images import import_everywhere


def command(args: argparse.Namespace) -> int:
    """Imports and says under which names."""
    out = Output()
    with out.step(f"importing {args.file}"):
        names = asyncio.run(import_everywhere(cluster_of(args.state), args.file, args.node))
    for name in names:
        out.line(name)
    return 0
