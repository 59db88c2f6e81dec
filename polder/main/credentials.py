"""The certificates, configuration files and kubeconfigs of a cluster on one machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polder.api.polder import Tenant
from polder.apiserver.authn import NODES, PLATFORM_ADMINS, ROOT_URN, TENANT_ADMINS, tenant_urn
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.cli.kubeconfig import Access, render
from polder.client.client import Client, ClientSettings
from polder.main.cluster import Cluster, NodePlan
from polder.main.config import AgentConfig, ServerConfig, dump
from polder.main.config_authz import AuditConfig
from polder.main.config_storage import SealingConfig
from polder.system.pki import Leaf, Pki, ensure_pki, write_private
from polder.system.pki.sealing import ensure_keyring


@dataclass(frozen=True, slots=True)
class Credentials:
    """Makes and finds the credentials below a cluster's state directory."""

    cluster: Cluster
    pki: Pki

    @classmethod
    def of(cls, cluster: Cluster) -> Credentials:
        """With the cluster's authorities, made if missing."""
        return cls(cluster, ensure_pki(cluster.pki))

    def _ensure(self, name: str, common_name: str, group: str, uri: str = "") -> tuple[Path, Path]:
        certificate, key = self.cluster.pki / f"{name}.crt", self.cluster.pki / f"{name}.key"
        if not (certificate.exists() and key.exists()):
            self.pki.issue_client(common_name, [group], uri).write(certificate, key)
        return certificate, key

    def node(self, node: NodePlan) -> tuple[Path, Path]:
        """Certificate and key of a node's agent."""
        return self._ensure(node.name, f"system:node:{node.name}", NODES)

    def admin(self) -> tuple[Path, Path]:
        """Certificate and key of the platform's administrator."""
        return self._ensure("admin", "admin", PLATFORM_ADMINS, ROOT_URN)

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

    def kubeconfig(self, tenant: TenantName, leaf: Leaf) -> str:
        """The kubeconfig of a tenant's administrator."""
        server = self.cluster.local_server + ("" if tenant == ROOT else f"/tenants/{tenant}")
        return render(Access(tenant, server, self.pki.serving_ca.read_bytes(), leaf.certificate, leaf.key))

    def write_admin_kubeconfig(self) -> None:
        """The platform administrator's, in the state directory."""
        certificate, key = self.admin()
        leaf = Leaf(certificate.read_bytes(), key.read_bytes())
        write_private(self.cluster.admin_kubeconfig, self.kubeconfig(ROOT, leaf).encode())

    def write_server_config(self) -> Path:
        """The server's configuration file."""
        cluster = self.cluster
        config = ServerConfig(
            listen=[f"127.0.0.1:{cluster.port}", f"{cluster.host_address}:{cluster.port}"],
            names=["localhost"],
            store=str(cluster.server_folder / "polder.db"),
            sealing=SealingConfig(keyring=str(ensure_keyring_file(cluster))),
            pki=str(cluster.pki),
            audit=AuditConfig(directory=str(cluster.server_folder / "audit")),
        )
        return _write(cluster.server_folder / "server.yaml", dump(config))

    def write_agent_config(self, node: NodePlan) -> Path:
        """A node's configuration file, and its credentials beside it."""
        certificate, key = self.node(node)
        config = AgentConfig(
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
        return _write(node.folder / "agent.yaml", dump(config))


def ensure_keyring_file(cluster: Cluster) -> Path:
    """The keys that seal the cluster's secrets at rest, made if missing."""
    path = cluster.server_folder / "keyring"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    ensure_keyring(path)
    return path


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, text.encode())
    return path
