"""A web server beyond the cluster, on the underlay: what the demo's egress reaches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polder.main.cluster import Cluster
from polder.main.hostnet import HostNetwork
from polder.main.up import Daemon
from polder.system.commands import inside, run


@dataclass(frozen=True, slots=True)
class Outside:
    """A namespace with an address of the underlay's subnet, and a server that says ``outside``."""

    cluster: Cluster

    @property
    def folder(self) -> Path:
        """Its files."""
        return self.cluster.state / "outside"

    @property
    def _netns(self) -> Path:
        return self.folder / "net"

    @property
    def _link(self) -> str:
        return f"{self.cluster.name}out"

    @property
    def _www(self) -> Path:
        return self.folder / "www"

    @property
    def daemon(self) -> Daemon:
        """The web server."""
        return Daemon(self.folder, inside(self._netns, "busybox", "httpd", "-f", "-p", "80", "-h", str(self._www)))

    def ensure(self) -> None:
        """Starts it. Idempotent; `polder down` ends it."""
        self._www.mkdir(parents=True, exist_ok=True)
        (self._www / "index.html").write_text("outside\n")
        HostNetwork(self.cluster).ensure_namespace(self._netns, self._link, "uplink", self.cluster.outside_address)
        run(*inside(self._netns, "ip", "route", "replace", "default", "via", self.cluster.host_address))
        self.daemon.ensure()

    def remove(self) -> None:
        """Takes its namespace away, after its server."""
        HostNetwork(self.cluster).remove_namespace(self._netns, self._link)
        self.daemon.pidfile.unlink(missing_ok=True)
