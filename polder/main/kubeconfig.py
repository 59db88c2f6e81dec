"""`polder kubeconfig TENANT`."""

from __future__ import annotations

import argparse
import asyncio

from polder.base.errors import PermanentError
from polder.base.ids import ROOT, TenantName
from polder.cli.output import Output
from polder.main.credentials import Credentials
from polder.main.hostnet import cluster_of
from polder.system.pki import write_private


async def document(credentials: Credentials, tenant: TenantName) -> str:
    """The kubeconfig of a tenant's administrator. Raises ApiError if there is no such tenant."""
    if tenant == ROOT:
        return credentials.cluster.admin_kubeconfig.read_text()
    client = credentials.admin_client()
    try:
        return credentials.kubeconfig(tenant, await credentials.tenant_admin(client, tenant))
    finally:
        await client.close()


def command(args: argparse.Namespace) -> int:
    """Prints it, or writes it to --file with mode 0600."""
    out = Output()
    if args.file is not None and not args.file.absolute().parent.is_dir():
        raise PermanentError(f"--file {args.file}: there is no directory {args.file.parent}")
    text = asyncio.run(document(Credentials.of(cluster_of(args.state)), TenantName(args.tenant)))
    if args.file is None:
        out.line(text.rstrip())
    else:
        write_private(args.file, text.encode())
        out.note(f"wrote {args.file}: the administrator of {args.tenant}")
    return 0
