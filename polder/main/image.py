"""`polder image import FILE`."""

from __future__ import annotations

import argparse
import asyncio

from polder.base.errors import PermanentError
from polder.cli.output import Output
from polder.main.hostnet import cluster_of
from polder.main.images import import_everywhere


def command(args: argparse.Namespace) -> int:
    """Imports and says under which names."""
    if not args.file.is_file():
        raise PermanentError(f"{args.file}: no file; name an OCI or docker archive (a .tar)")
    out = Output()
    with out.step(f"importing {args.file}"):
        names = asyncio.run(import_everywhere(cluster_of(args.state), args.file, args.node))
    for name in names:
        out.line(name)
    return 0
