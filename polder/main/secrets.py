"""`polder secrets`: the keys that seal secrets at rest."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from polder.base.errors import PermanentError
from polder.main.config import ServerConfig, load
from polder.main.credentials import Credentials
from polder.main.hostnet import cluster_of
from polder.main.storage import config_file
from polder.system.pki.sealing import Keyring, read_keyring


async def reseal(args: argparse.Namespace) -> int:
    """Lets the server read the keyring again and write every value anew; returns how many it wrote."""
    client = Credentials.of(cluster_of(args.state)).admin_client()
    try:
        return int(json.loads(await client.raw("POST", "/polder/v1/secrets/reseal"))["rewritten"])
    finally:
        await client.close()


def _next(ring: Keyring) -> Keyring:
    """With a key that was added before and does not write yet, or a new one, as the one that writes."""
    return (ring if ring.newest != ring.writes else ring.with_new_key()).writing()


def command(args: argparse.Namespace) -> int:
    """Runs `polder secrets add-key`, `rotate` and `prune`."""
    config = load(config_file(args.state), ServerConfig)
    if config.sealing is None:
        raise PermanentError(f"{config_file(args.state)} names no keyring: this cluster's secrets are not sealed")
    path = Path(config.sealing.keyring)
    ring = read_keyring(path)
    match args.action:
        case "add-key":
            ring = ring.with_new_key()
            ring.write(path)
            print(f"added key {ring.newest} to {path}; give the file to every server, then run `polder secrets rotate`")
        case "rotate":
            ring = _next(ring)
            ring.write(path)
            count = asyncio.run(reseal(args))
            print(f"key {ring.writes} seals from now on; {count} values were written anew")
            print("older keys still open backups; `polder secrets prune` forgets them")
        case "prune":
            count = asyncio.run(reseal(args))
            ring.pruned().write(path)
            print(f"forgot {len(ring.keys) - 1} keys after {count} values were written anew")
    return 0
