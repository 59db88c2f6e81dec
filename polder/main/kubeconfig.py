"""`polder kubeconfig`: a tenant's administrator, the platform's, or a user with a context for each tenant that they are in."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from polder.api.polder import Tenant
from polder.apiserver.members import membership
from polder.apiserver.types import Identity, Role
from polder.base.errors import PermanentError
from polder.base.ids import ROOT, TenantName
from polder.cli.output import Output
from polder.client.client import Client
from polder.main.credentials import Credentials
from polder.main.hostnet import cluster_of
from polder.system.pki import write_private


async def document(credentials: Credentials, tenant: TenantName) -> str:
    """The kubeconfig of a tenant's administrator. Raises ApiError if there is no such tenant."""
    if tenant == ROOT:
        credentials.write_admin_kubeconfig()
        return credentials.cluster.admin_kubeconfig.read_text()
    client = credentials.admin_client()
    try:
        return credentials.kubeconfig(tenant, await credentials.tenant_admin(client, tenant))
    finally:
        await client.close()


async def of_user(credentials: Credentials, name: str, groups: Sequence[str]) -> str:
    """The kubeconfig of a user of the platform: a context for each tenant whose members name them, and one for root."""
    client = credentials.admin_client()
    try:
        tenants = await tenants_of(client, Identity(name, Role.USER, ROOT, tuple(groups)))
    finally:
        await client.close()
    return credentials.contexts(name, [*tenants, ROOT], credentials.user(name, groups))


async def tenants_of(client: Client, who: Identity) -> list[TenantName]:
    """The tenants whose members name somebody, by name."""
    found = []
    for tenant in (await client.list(Tenant, ROOT)).items:
        name = TenantName(tenant.metadata.name)
        members = [
            {"kind": m.kind, "name": m.name, "namespace": m.namespace, "tenant": m.tenant, "role": m.role}
            for m in tenant.spec.members or ()
        ]
        if membership(name, members).role(who):
            found.append(name)
    return sorted(found)


def command(args: argparse.Namespace) -> int:
    """Prints it, or writes it to --file with mode 0600."""
    out = Output()
    if bool(args.tenant) == bool(args.user):
        raise PermanentError("name a tenant (root for the platform), or a user with --user")
    if args.group and not args.user:
        raise PermanentError("--group is for --user: a tenant's administrator is in no other group")
    if args.file is not None and not args.file.absolute().parent.is_dir():
        raise PermanentError(f"--file {args.file}: there is no directory {args.file.parent}")
    credentials = Credentials.of(cluster_of(args.state))
    if args.user:
        text, whose = asyncio.run(of_user(credentials, args.user, args.group)), f"the user {args.user}"
    else:
        text = asyncio.run(document(credentials, TenantName(args.tenant)))
        whose = f"the administrator of {args.tenant}"
    if args.file is None:
        out.line(text.rstrip())
    else:
        write_private(args.file, text.encode())
        out.note(f"wrote {args.file}: {whose}")
    return 0
