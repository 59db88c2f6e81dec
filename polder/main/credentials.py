"""The certificates, configuration files and kubeconfigs of a cluster on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import yaml

from polder.api.polder import Tenant
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.cli.kubeconfig import Access, Place, render
from polder.client.client import Client, ClientSettings
from polder.main.cluster import Cluster, NodePlan
from polder.main.config import AgentConfig, ServerConfig, T, dump, load
from polder.main.config_authz import AuditConfig
from polder.main.config_storage import SealingConfig
from polder.system.pki import (
    AGENTS,
    CLIENTS,
    NODE_PREFIX,
    PLATFORM_ADMINS,
    ROOT_URN,
    TENANT_ADMINS,
    Leaf,
    Pki,
    ensure_pki,
    new_request,
    settle_pair,
    tenant_urn,
    write_private,
)
from polder.system.pki.sealing import ensure_keyring

_OURS = (
    "node", "server", "authority", "certificate", "key", "state", "images", "prefix", "address", "egress_address",
)  # fmt: skip
"""What follows from the cluster's own choices in an agent's file."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Makes and finds the credentials below a cluster's state directory."""

    cluster: Cluster
    pki: Pki

    @classmethod
    def of(cls, cluster: Cluster) -> Credentials:
        """With the cluster's authorities, made if missing."""
        return cls(cluster, ensure_pki(cluster.pki))

    def node(self, node: NodePlan) -> tuple[Path, Path]:
        """Certificate and key of a node's agent, which renews them itself from then on. A key that is there stays: it may
        be the one that the server knows the node by.
        """
        certificate, key = self.cluster.pki / f"{node.name}.crt", self.cluster.pki / f"{node.name}.key"
        settle_pair(certificate, key)
        if not key.exists() or self.pki.due(AGENTS, certificate, datetime.now(UTC)):
            known = key.read_bytes() if key.exists() else b""
            self.pki.issue_agent(f"{NODE_PREFIX}{node.name}", (node.address,), known).replace(certificate, key)
        return certificate, key

    def admin(self) -> tuple[Path, Path]:
        """Certificate and key of the platform's administrator."""
        certificate, key = self.cluster.pki / "admin.crt", self.cluster.pki / "admin.key"
        settle_pair(certificate, key)
        if not key.exists() or self.pki.due(CLIENTS, certificate, datetime.now(UTC)):
            self.pki.issue_client("admin", [PLATFORM_ADMINS], ROOT_URN).replace(certificate, key)
        return certificate, key

    def admin_client(self) -> Client:
        """The platform administrator's client."""
        certificate, key = self.admin()
        return self.client(certificate, key)

    def client(self, certificate: Path, key: Path) -> Client:
        """A client of this machine's server."""
        return Client(
            ClientSettings(
                server=self.cluster.local_server,
                ca_file=self.pki.serving_ca,
                cert_file=certificate,
                key_file=key,
            )
        )

    async def tenant_admin(self, platform: Client, tenant: TenantName) -> Leaf:
        """A fresh certificate of a tenant's administrator, bound to the living tenant. Raises ApiError."""
        found = await platform.get(Tenant, Ref(ROOT, "", tenant))
        return self.pki.issue_client("admin", [TENANT_ADMINS], tenant_urn(tenant, found.metadata.uid))

    def user(self, name: str, groups: Sequence[str]) -> Leaf:
        """A fresh certificate of a user of the platform, who has no rights but those given to the name and the groups: by
        bindings in root, by tenants' members. Raises PkiError.
        """
        request = new_request(name, groups)
        return Leaf(self.pki.sign_tenant_client(request.certificate, ROOT, ROOT), request.key)

    def kubeconfig(self, tenant: TenantName, leaf: Leaf) -> str:
        """The kubeconfig of a tenant's administrator."""
        return self.contexts(f"{tenant}-admin", [tenant], leaf)

    def contexts(self, user: str, tenants: Sequence[TenantName], leaf: Leaf) -> str:
        """A kubeconfig with a context for each tenant, the first one current."""
        places = [Place(t, self.cluster.local_server + ("" if t == ROOT else f"/tenants/{t}")) for t in tenants]
        return render(Access(user, self.pki.trust.encode(), leaf.certificate, leaf.key), places)

    def write_admin_kubeconfig(self) -> None:
        """The platform administrator's, in the state directory."""
        certificate, key = self.admin()
        leaf = Leaf(certificate.read_bytes(), key.read_bytes())
        write_private(self.cluster.admin_kubeconfig, self.kubeconfig(ROOT, leaf).encode())

    def write_server_config(self) -> Path:
        """The server's configuration file. Of one that is there, only what follows from the cluster's own choices is put right:
        where its files are, and the first two addresses. Raises PermanentError where it cannot be used.
        """
        cluster, path = self.cluster, self.cluster.server_folder / "server.yaml"
        keyring = str(ensure_keyring_file(cluster))
        made = ServerConfig(
            listen=[f"127.0.0.1:{cluster.port}", f"{cluster.host_address}:{cluster.port}"],
            names=["localhost"],
            store=str(cluster.server_folder / "polder.db"),
            sealing=SealingConfig(keyring=keyring),
            pki=str(cluster.pki),
            audit=AuditConfig(directory=str(cluster.server_folder / "audit")),
        )
        known = _known(path, ServerConfig)
        if known is None or known.pki != made.pki:
            return _write(path, _text(made))
        others = [address for address in known.listen[len(made.listen) :] if address not in made.listen]
        return _settle(path, known, msgspec.structs.replace(known, listen=[*made.listen, *others]))

    def write_agent_config(self, node: NodePlan) -> Path:
        """A node's configuration file, and its credentials beside it. What somebody set in one that is there stays."""
        certificate, key = self.node(node)
        path = node.folder / "agent.yaml"
        made = AgentConfig(
            node=node.name,
            server=self.cluster.server,
            authority=str(self.pki.serving_ca),
            certificate=str(certificate),
            key=str(key),
            state=str(node.folder),
            images=str(self.cluster.images),
            prefix=self.cluster.name,
            address=node.address,
            egress_address=node.egress,
            protected=[self.cluster.host_address],
        )
        known = _known(path, AgentConfig)
        if known is None:
            return _write(path, _text(made))
        ours = {name: getattr(made, name) for name in _OURS}
        protected = list(dict.fromkeys([*made.protected, *known.protected]))
        return _settle(path, known, msgspec.structs.replace(known, **ours, protected=protected))


def ensure_keyring_file(cluster: Cluster) -> Path:
    """The keys that seal the cluster's secrets at rest, made if missing."""
    path = cluster.server_folder / "keyring"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    ensure_keyring(path)
    return path


def _known(path: Path, kind: type[T]) -> T | None:
    return load(path, kind) if path.exists() else None


def _settle(path: Path, known: T, wanted: T) -> Path:
    """Writes a file only where something of it changes: whoever edited it may have left comments."""
    return path if wanted == known else _write(path, _text(wanted))


def _text(config: ServerConfig | AgentConfig) -> str:
    """Without what is as by default: since the file stays, a later release's defaults would never count."""
    said: dict[str, object] = yaml.safe_load(dump(config))
    for known in msgspec.structs.fields(config):
        usual = known.default if known.default_factory is msgspec.NODEFAULT else known.default_factory()
        if getattr(config, known.name) == usual and known.name not in {"api_version", "kind"}:
            del said[known.encode_name]
    return yaml.safe_dump(said, sort_keys=False)


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, text.encode())
    return path
