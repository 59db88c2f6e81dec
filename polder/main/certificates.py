"""`polder certificates`: the authorities, how long they last, rolling one over, and taking a node's certificates back."""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime
from urllib.parse import quote

from polder.base.errors import PermanentError
from polder.cli.output import Output
from polder.main.credentials import Credentials
from polder.main.hostnet import cluster_of
from polder.node.renewal import PATH
from polder.system.pki import NAMES, SERVING, Pki, pin_of, read_times, roll_over, stage

NEXT = {
    "introduced": (
        "The new authority is trusted from now on, the old one still signs. Once everybody has the new one ({who}), "
        "run the command again: it signs then."
    ),
    "switched": (
        "The new authority signs, and the old one is still trusted: the server and the agents renew their own "
        "certificates within an hour. Once every certificate of the old one is replaced ({what}), run the command again: "
        "it is trusted no more then."
    ),
    "finished": "The old authority is trusted no more.",
}
WHO = {SERVING: "agents learn it within an hour, pods with their ConfigMap; write people's kubeconfigs anew"}
SERVERS = "the server within a minute; where several share a store, copy pki/ to each"
WHAT = {
    SERVING: "the server's own",
    "clients": "those of people: write their kubeconfigs anew; leaves last 90 days",
    "agents": "those of agents that were away",
    "front-proxy": "the proxies'",
}


def rows(pki: Pki, now: datetime) -> list[list[str]]:
    """Each authority: its stage, its last day, its pin."""
    found = []
    for name in NAMES:
        pem = pki.authority(name).certificate
        end = read_times(pem)[1]
        found.append([name, stage(pki.directory, name), f"{end:%Y-%m-%d}", f"{(end - now).days} days", pin_of(pem)])
    return found


def rotate(pki: Pki, name: str, out: Output) -> None:
    """The next step of a roll-over. Raises PkiError."""
    step = roll_over(pki.directory, name)
    pki.reload()
    out.line(step)
    out.note(NEXT[step].format(who=WHO.get(name, SERVERS), what=WHAT[name]))


async def revoke(credentials: Credentials, node: str) -> None:
    """Takes a node's certificates back. Raises ApiError."""
    client = credentials.admin_client()
    try:
        await client.raw("DELETE", f"{PATH}?node={quote(node, safe='')}")
    finally:
        await client.close()


def command(args: argparse.Namespace) -> int:
    """Runs `polder certificates`."""
    credentials, out = Credentials.of(cluster_of(args.state)), Output()
    if args.action == "list":
        out.table(["authority", "stage", "until", "left", "pin"], rows(credentials.pki, datetime.now(UTC)))
    elif args.action == "rotate":
        if args.name not in NAMES:
            raise PermanentError(f"there is no authority {args.name}; there are {', '.join(NAMES)}")
        rotate(credentials.pki, args.name, out)
    else:
        asyncio.run(revoke(credentials, args.node))
        out.note(f"the certificates of {args.node} are taken back; it may join again with a token")
    return 0
