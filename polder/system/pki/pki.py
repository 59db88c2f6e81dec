"""The cluster's authorities on disk: signing, trusting, and rolling one over.

Of each authority NAME the directory has ``NAME-ca.crt`` and ``NAME-ca.key``, which sign. While it is rolled over there is
also ``NAME-next.crt`` with its key (trusted, not signing yet), then ``NAME-old.crt`` (trusted, not signing any more).
Bundles of what is trusted: ``serving-bundle.crt`` for callers, ``callers-bundle.crt`` for servers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from polder.base.ids import TenantName
from polder.system.pki.authority import Authority, Wanted, new_authority
from polder.system.pki.caller import AGENTS, CLIENTS, FRONT_PROXY, NODES, RESERVED, SERVING, URN, tenant_urn
from polder.system.pki.files import Leaf, PkiError, write_private
from polder.system.pki.leaves import CLIENT_USAGES, LEAF_LIFE, SERVER_USAGES, make_subject, needs_renewal
from polder.system.pki.requests import new_request, read_request

NAMES = (SERVING, CLIENTS, AGENTS, FRONT_PROXY)
CALLERS = (CLIENTS, AGENTS, FRONT_PROXY)
ISSUERS_KNOWN = 4096


class Pki:
    """The authorities, kept in ``directory``; ``reload`` takes up what another process changed there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stamp: tuple[tuple[str, int], ...] = ()
        self._authorities: dict[str, Authority] = {}
        self._issuers: dict[bytes, str] = {}
        self.generation = 0
        self.reload()

    def reload(self) -> bool:
        """Reads the authorities again if their files changed; says whether they did. Raises PkiError."""
        stamp = tuple(sorted((p.name, p.stat().st_mtime_ns) for n in NAMES for p in self._files(n) if p.exists()))
        if stamp == self._stamp:
            return False
        self._authorities = {name: self._read(name) for name in NAMES}
        self._issuers = {}
        self._write_bundles()
        self._stamp = stamp
        self.generation += 1
        return True

    def _files(self, name: str) -> tuple[Path, ...]:
        return (*self.pair(name), self.directory / f"{name}-next.crt", self.directory / f"{name}-old.crt")

    def pair(self, name: str) -> tuple[Path, Path]:
        """Certificate and key that sign."""
        return self.directory / f"{name}-ca.crt", self.directory / f"{name}-ca.key"

    def _read(self, name: str) -> Authority:
        certificate, key = self.pair(name)
        if not key.exists():
            raise PkiError(f"{key} is missing beside {certificate.name}")
        others = [p.read_bytes() for p in self._files(name)[2:] if p.exists()]
        return Authority(certificate.read_bytes(), key.read_bytes(), others)

    def _write_bundles(self) -> None:
        for path, names in ((self.serving_ca, (SERVING,)), (self.clients_ca, CALLERS)):
            wanted = b"".join(self._authorities[name].bundle for name in names)
            if not path.exists() or path.read_bytes() != wanted:
                write_private(path, wanted)

    def authority(self, name: str) -> Authority:
        """One of the four."""
        return self._authorities[name]

    @property
    def serving(self) -> Authority:
        """Signs what servers show."""
        return self._authorities[SERVING]

    @property
    def clients(self) -> Authority:
        """Signs what people, tenants and the server's own parts show."""
        return self._authorities[CLIENTS]

    @property
    def trust(self) -> str:
        """What clients trust servers by, PEM."""
        return self.serving.bundle.decode()

    @property
    def serving_ca(self) -> Path:
        """The file that clients trust servers by."""
        return self.directory / "serving-bundle.crt"

    @property
    def clients_ca(self) -> Path:
        """The file that servers trust callers by: people, nodes and proxies."""
        return self.directory / "callers-bundle.crt"

    def issuer(self, der: bytes) -> str:
        """Which authority signed a caller's certificate, empty for none that is trusted now. Raises PkiError."""
        known = self._issuers.get(der)
        if known is None:
            known = next((name for name in CALLERS if self._authorities[name].issued(der)), "")
            if len(self._issuers) >= ISSUERS_KNOWN:
                self._issuers.clear()
            self._issuers[der] = known
        return known

    def signs(self, name: str, der: bytes) -> bool:
        """Whether a leaf is by the pair of an authority that signs now. Raises PkiError."""
        return self._authorities[name].is_current(der)

    def issue_serving(self, names: Iterable[str], ips: Iterable[str]) -> Leaf:
        """A server's certificate for DNS names and addresses; the first of them is its common name."""
        dns, addresses = list(names), [ipaddress.ip_address(ip) for ip in ips]
        general: list[x509.GeneralName] = [*map(x509.DNSName, dns), *map(x509.IPAddress, addresses)]
        if not general:
            raise PkiError("a serving certificate needs a name or an address")
        common = dns[0] if dns else str(addresses[0])
        return self.serving.issue(Wanted(make_subject(common), general, SERVER_USAGES))

    def issue_client(self, common_name: str, organizations: Iterable[str], tenant_uri: str = "") -> Leaf:
        """A caller's certificate, a node's by the authority of agents. ``tenant_uri`` (``urn:polder:tenant:…``) ties it
        to one tenant.
        """
        groups = tuple(organizations)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(tenant_uri)] if tenant_uri else []
        authority = self._authorities[AGENTS if groups == (NODES,) else CLIENTS]
        return authority.issue(Wanted(make_subject(common_name, groups), names, CLIENT_USAGES))

    def issue_agent(self, common_name: str, addresses: Sequence[str], key: bytes = b"") -> Leaf:
        """A node's certificate, for ``key`` (PEM) or a new one. Raises PkiError."""
        asked = new_request(common_name, (NODES,), addresses, key)
        return Leaf(self.sign_agent(asked.certificate, common_name), asked.key)

    def issue_front_proxy(self, common_name: str) -> Leaf:
        """The certificate of an authenticating proxy."""
        return self._authorities[FRONT_PROXY].issue(Wanted(make_subject(common_name), (), CLIENT_USAGES))

    def sign_agent(self, request: bytes, common_name: str) -> bytes:
        """Signs a node's request (PEM) for exactly this name, with the addresses that it asks for, for ninety days.
        Whoever calls has checked that the node may have them. Raises PkiError.
        """
        asked = read_request(request)
        if asked.common_name != common_name or asked.organizations != (NODES,):
            raise PkiError(f"the request is not for {common_name} in the group {NODES}")
        names = [x509.IPAddress(ipaddress.ip_address(a)) for a in asked.addresses]
        wanted = Wanted(make_subject(common_name, (NODES,)), names, CLIENT_USAGES)
        return self._authorities[AGENTS].sign(asked, wanted)

    def sign_tenant_client(
        self,
        request: bytes,
        tenant: TenantName,
        uid: str,
        usages: Sequence[str] = CLIENT_USAGES,
        life: timedelta = LEAF_LIFE,
    ) -> bytes:
        """Signs a request (PEM) of a tenant's CertificateSigningRequest for a user of that tenant, of ``root`` for the
        platform's. The holder's name and groups are the subject's; the tenant, with its UID, only we write. Whatever is
        asked, the certificate is by the authority of clients, which nobody trusts a server by. Raises PkiError.
        """
        asked = read_request(request)
        if not asked.common_name:
            raise PkiError("the request names no user: its subject needs one common name")
        if any(group.startswith(RESERVED) for group in asked.organizations):
            raise PkiError(f"groups that begin with {RESERVED} are given out by the platform only")
        if any(uri.casefold().startswith(URN) for uri in asked.uris):
            raise PkiError(f"names that begin with {URN} are written by the signer only")
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(tenant_urn(tenant, uid))]
        names += [x509.UniformResourceIdentifier(uri) for uri in asked.uris]
        names += [x509.DNSName(name) for name in asked.dns]
        names += [x509.IPAddress(ipaddress.ip_address(a)) for a in asked.addresses]
        names += [x509.RFC822Name(email) for email in asked.emails]
        return self.clients.sign(asked, Wanted(asked.subject, names, usages, life))

    def due(self, name: str, certificate: Path, now: datetime) -> bool:
        """Whether a leaf on disk is to be made anew: it is missing, two thirds of its life have gone, or it is not by
        the pair of the authority that signs now.
        """
        try:
            leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
            current = self.signs(name, leaf.public_bytes(serialization.Encoding.DER))
        except (OSError, ValueError, PkiError):
            return True
        return not current or needs_renewal(leaf.not_valid_before_utc, leaf.not_valid_after_utc, now)


def ensure_pki(directory: Path) -> Pki:
    """Loads the authorities below ``directory``, making those that are missing. Idempotent. Raises PkiError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in NAMES:
        certificate, key = directory / f"{name}-ca.crt", directory / f"{name}-ca.key"
        if not certificate.exists():
            new_authority(f"polder-{name}").write(certificate, key)
        complete_switch(directory, name)
    return Pki(directory)


def roll_over(directory: Path, name: str) -> str:
    """Takes the next of three steps to replace an authority, and says where it stands then: ``introduced`` (the new one
    is trusted, the old one signs), ``switched`` (the new one signs, the old one is trusted), ``finished`` (the old one is
    trusted no more). Whoever trusts the authority needs time between the steps. Raises PkiError.
    """
    if name not in NAMES:
        raise PkiError(f"there is no authority {name}; there are {', '.join(NAMES)}")
    following, old = directory / f"{name}-next.crt", directory / f"{name}-old.crt"
    if old.exists():
        old.unlink()
        return "finished"
    if following.exists():
        write_private(old, (directory / f"{name}-ca.crt").read_bytes())
        complete_switch(directory, name)
        return "switched"
    new_authority(f"polder-{name}").write(following, directory / f"{name}-next.key")
    return "introduced"


def stage(directory: Path, name: str) -> str:
    """Where the roll-over of an authority stands: ``steady``, ``introduced`` or ``switched``."""
    if (directory / f"{name}-old.crt").exists():
        return "switched"
    return "introduced" if (directory / f"{name}-next.crt").exists() else "steady"


def complete_switch(directory: Path, name: str) -> None:
    """Ends a switch that began (the old certificate is kept aside, the next one is still there). Idempotent, so that one
    that was cut short is ended by the next start.
    """
    certificate, key = directory / f"{name}-next.crt", directory / f"{name}-next.key"
    if not ((directory / f"{name}-old.crt").exists() and certificate.exists()):
        return
    if key.exists():
        write_private(directory / f"{name}-ca.key", key.read_bytes())
    write_private(directory / f"{name}-ca.crt", certificate.read_bytes())
    key.unlink(missing_ok=True)
    certificate.unlink()
