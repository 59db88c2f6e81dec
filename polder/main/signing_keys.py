"""`polder signing-keys`: the keys of service-account tokens, and replacing a tenant's without ending its tokens."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from polder.api.polder import Tenant
from polder.apiserver.signing_key_steps import KEYS_PATH
from polder.apiserver.signing_keys import FINISHED, INTRODUCED, SWITCHED
from polder.base.ids import ROOT
from polder.cli.output import Output
from polder.client.client import Client
from polder.main.credentials import Credentials
from polder.main.hostnet import cluster_of

NEXT = {
    INTRODUCED: (
        "The new key is published and verifies; the old one still signs. Once whoever keeps a copy of the key set has read it "
        "again, run the command again: it signs then."
    ),
    SWITCHED: (
        "The new key signs, tokens of the old one stay good. Once they have ended (pods' are renewed within the hour, others "
        "last as long as was asked for), run the command again: the old key is dropped."
    ),
    FINISHED: "The old key is dropped, and what it signed is worthless.",
}


async def ask(client: Client, method: str, tenant: str, *, force: bool = False) -> Any:
    """How a tenant's keys stand, after a step if ``method`` is POST. Raises ApiError."""
    query = {"tenant": tenant, **({"force": "true"} if force else {})}
    return json.loads(await client.raw(method, f"{KEYS_PATH}?{urlencode(query)}"))


async def rows(client: Client, tenants: Sequence[str]) -> list[list[str]]:
    """Each tenant's stage, the key that signs, and what verifies besides; of all tenants where none is named."""
    names = list(tenants) or [ROOT, *sorted(t.metadata.name for t in (await client.list(Tenant, ROOT)).items)]
    found = []
    for name in names:
        said = await ask(client, "GET", name)
        found.append([name, said["stage"], said["signs"], ", ".join(said["verify"]) or "-"])
    return found


async def _run(args: argparse.Namespace, out: Output) -> None:
    client = Credentials.of(cluster_of(args.state)).admin_client()
    try:
        if args.action == "list":
            out.table(["tenant", "stage", "signs", "verifies too"], await rows(client, args.tenant))
            return
        stages = []
        for name in args.tenant:
            stages.append((await ask(client, "POST", name, force=args.force))["stage"])
            out.line(f"{name}: {stages[-1]}")
        for stage in dict.fromkeys(stages):
            out.note(NEXT[stage])
    finally:
        await client.close()


def command(args: argparse.Namespace) -> int:
    """Runs `polder signing-keys`."""
    asyncio.run(_run(args, Output()))
    return 0
