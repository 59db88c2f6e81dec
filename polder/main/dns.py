"""The resolver's process of one node, which the agent starts as ``python -m polder.main.dns``: no command for people."""

from __future__ import annotations

import argparse
from pathlib import Path

from polder.dns.process import bind, serve
from polder.main.daemon import run
from polder.main.logs import set_up


def main() -> None:
    """Runs until a signal."""
    parser = argparse.ArgumentParser(prog="python -m polder.main.dns")
    parser.add_argument("--socket", type=Path, required=True, help="where the agent speaks to it")
    parser.add_argument("--release", default="", help="by which the agent knows it")
    set_up("text")
    listener = bind(parser.parse_args().socket)
    run(lambda: serve(listener))


if __name__ == "__main__":
    main()
