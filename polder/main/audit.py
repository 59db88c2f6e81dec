"""`polder audit TENANT`: what was asked of a tenant, as the server of this machine wrote it down."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from polder.apiserver.audit_files import files_of
from polder.base.errors import PermanentError
from polder.cli.output import Output
from polder.main.config import ServerConfig, load
from polder.main.hostnet import cluster_of


def _events(directory: Path, tenant: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of a tenant's files, the oldest first; one that was cut off is left out."""
    for path in files_of(directory, tenant):
        with path.open("rb") as file:
            for line in file:
                try:
                    yield line, orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue


def _is_wanted(event: dict[str, Any], args: argparse.Namespace) -> bool:
    names = {event["user"]["username"], (event.get("impersonatedUser") or {}).get("username")}
    return (not args.user or args.user in names) and (not args.verb or args.verb == event["verb"])


def _row(event: dict[str, Any]) -> str:
    ref = event.get("objectRef") or {}
    name = "/".join(ref[part] for part in ("namespace", "name") if part in ref)
    resource = ref.get("resource", "") + (f"/{ref['subresource']}" if ref.get("subresource") else "")
    what = f"{resource} {name}".strip() if ref else event["requestURI"]
    who, other = event["user"]["username"], event.get("impersonatedUser")
    user = f"{who} as {other['username']}" if other else who
    code = (event.get("responseStatus") or {}).get("code", event["stage"])
    return f"{event['requestReceivedTimestamp']}  {code}  {user}  {event['verb']}  {what}"


def _plain(text: str) -> str:
    """What callers named, without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def command(args: argparse.Namespace) -> int:
    """Prints the events, as a table or as they stand in the files."""
    out = Output()
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", args.tenant):
        raise PermanentError(f"{args.tenant!r} is no tenant's name")
    config = load(cluster_of(args.state).server_folder / "server.yaml", ServerConfig)
    if config.audit is None:
        raise PermanentError("the server's configuration has no audit")
    for line, event in _events(Path(config.audit.directory), args.tenant):
        if _is_wanted(event, args):
            out.line(line.decode().rstrip() if args.output == "json" else _plain(_row(event)))
    return 0
