"""CertificateSigningRequests: nodes' own are approved, approved ones are signed, old ones go.

Signed is for ``kubernetes.io/kube-apiserver-client`` and ``kubernetes.io/legacy-unknown`` of every tenant, a certificate that
means somebody in that tenant alone, and for ``kubernetes.io/kube-apiserver-client-kubelet`` of the platform's own nodes.
``kubernetes.io/kubelet-serving`` is refused: Polder's nodes serve nothing by certificates, and what signs for servers is
what clients trust the API by. Other signers are the tenant's own business. Source: upstream's certificate controllers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol
from urllib.parse import quote

import msgspec
import orjson

from polder.api.certificates import CertificateSigningRequest, SigningCondition
from polder.api.errors import ApiError
from polder.api.meta import Raw as Patch
from polder.api.meta import Struct
from polder.api.polder import Tenant
from polder.base.clock import Clock, stamp
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.reading import find
from polder.system.pki.files import PkiError
from polder.system.pki.requests import Request, read_request

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING = "kubernetes.io/kubelet-serving"
UNKNOWN = "kubernetes.io/legacy-unknown"
SIGNERS = frozenset({CLIENT, KUBELET, SERVING, UNKNOWN})
NODES = "system:nodes"
NODE_PREFIX = "system:node:"
CLIENT_USAGES = frozenset({"digital signature", "key encipherment", "client auth"})
LONGEST = timedelta(days=90)
SHORTEST = timedelta(minutes=10)
KEPT = timedelta(hours=1)
"""How long a request stays after it was decided."""
PENDING = timedelta(hours=24)
"""How long one stays undecided."""


class Signer(Protocol):
    """Signs with the platform's keys. Both raise PkiError."""

    def sign_tenant_client(
        self, request: bytes, tenant: TenantName, uid: str, usages: Sequence[str] = ..., life: timedelta = ...
    ) -> bytes:
        """A client certificate of a tenant."""
        ...

    def sign_agent(self, request: bytes, common_name: str) -> bytes:
        """A node's certificate."""
        ...


class _Review(Struct, frozen=True, kw_only=True):
    allowed: bool = False


class _Answer(Struct, frozen=True, kw_only=True):
    status: _Review = _Review()


def condition(csr: CertificateSigningRequest, kind: str) -> SigningCondition | None:
    """The condition of a type."""
    return next((c for c in csr.status.conditions or () if c.type == kind), None)


def pem_of(csr: CertificateSigningRequest) -> bytes:
    """The request. Raises PkiError."""
    try:
        return base64.b64decode(csr.spec.request, validate=True)
    except binascii.Error as error:
        raise PkiError("the certificate request is no base64") from error


def is_for_node(request: Request, usages: Sequence[str]) -> bool:
    """Whether it asks for a node's client certificate, and nothing more."""
    asked = set(usages)
    plain = not (request.dns or request.addresses or request.emails or request.uris)
    return (
        request.organizations == (NODES,)
        and request.common_name.startswith(NODE_PREFIX)
        and plain
        and asked in (set(CLIENT_USAGES), set(CLIENT_USAGES) - {"key encipherment"})
    )


def is_over(csr: CertificateSigningRequest, now: datetime) -> bool:
    """Whether nobody needs the request any more."""
    for kind in ("Denied", "Failed", "Approved"):
        known = condition(csr, kind)
        if known is not None:
            since = known.last_update_time or known.last_transition_time or csr.metadata.creation_timestamp
            return since is not None and datetime.fromisoformat(since) + KEPT < now
    made = csr.metadata.creation_timestamp
    return made is not None and datetime.fromisoformat(made) + PENDING < now


class CertificateController:
    """Reconciles a CertificateSigningRequest; key: its reference."""

    def __init__(self, client: Client, clock: Clock, signer: Signer | None) -> None:
        self._client = client
        self._clock = clock
        self._signer = signer

    async def reconcile(self, ref: Ref) -> float | None:
        """One step. Raises ApiError."""
        csr = await find(self._client, CertificateSigningRequest, ref)
        if csr is None or csr.metadata.deletion_timestamp is not None:
            return None
        if is_over(csr, self._clock.now()):
            await self._client.delete(CertificateSigningRequest, ref, uid=csr.metadata.uid)
            return None
        if csr.spec.signer_name not in SIGNERS or condition(csr, "Denied") or condition(csr, "Failed"):
            return None
        if condition(csr, "Approved") is None:
            await self._approve(ref, csr)
        elif not csr.status.certificate and self._signer is not None:
            await self._sign(ref, csr, self._signer)
        return None

    async def _approve(self, ref: Ref, csr: CertificateSigningRequest) -> None:
        """Approves what a node asks for itself, or what who asks may have approved, as upstream's csrapproving."""
        if csr.spec.signer_name != KUBELET:
            return
        try:
            request = read_request(pem_of(csr))
        except PkiError:
            return
        if not is_for_node(request, csr.spec.usages or ()):
            return
        tries = [("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.")]
        if csr.spec.username == request.common_name:
            own = "Auto approving self kubelet client certificate after SubjectAccessReview."
            tries.insert(0, ("selfnodeclient", own))
        for subresource, message in tries:
            if await self._may(ref.tenant, csr, subresource):
                await self._decide(ref, csr, SigningCondition(type="Approved", reason="AutoApproved", message=message))
                return

    async def _may(self, tenant: TenantName, csr: CertificateSigningRequest, subresource: str) -> bool:
        attributes = {
            "group": "certificates.k8s.io", "resource": "certificatesigningrequests", "verb": "create",
            "subresource": subresource, "version": "*",
        }  # fmt: skip
        spec = csr.spec
        who = {"user": spec.username, "uid": spec.uid, "groups": spec.groups or [], "extra": spec.extra or {}}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                  "spec": {**who, "resourceAttributes": attributes}}  # fmt: skip
        path = f"/tenants/{quote(tenant)}/apis/authorization.k8s.io/v1/subjectaccessreviews"
        answer = await self._client.raw("POST", path, orjson.dumps(review))
        return msgspec.json.decode(answer, type=_Answer).status.allowed

    async def _sign(self, ref: Ref, csr: CertificateSigningRequest, signer: Signer) -> None:
        try:
            certificate = await self._signed(ref, csr, signer)
        except PkiError as error:
            failed = SigningCondition(type="Failed", reason="SignerValidationFailure", message=str(error))
            await self._write(ref, csr, {"conditions": self._with(csr, failed)}, "status")
            return
        await self._write(ref, csr, {"certificate": base64.b64encode(certificate).decode()}, "status")

    async def _signed(self, ref: Ref, csr: CertificateSigningRequest, signer: Signer) -> bytes:
        """Raises PkiError for what is not signed."""
        usages, pem = csr.spec.usages or [], pem_of(csr)
        if csr.spec.signer_name == SERVING:
            raise PkiError(f"{SERVING}: nodes of this cluster serve nothing by certificates")
        if csr.spec.signer_name == KUBELET:
            request = read_request(pem)
            if ref.tenant != ROOT:
                raise PkiError(f"{KUBELET}: nodes are the platform's, a tenant has none of its own")
            if not is_for_node(request, usages):
                raise PkiError("the request is not one of a node's client certificate")
            return signer.sign_agent(pem, request.common_name)
        if csr.spec.signer_name == CLIENT and ("client auth" not in usages or not CLIENT_USAGES.issuperset(usages)):
            raise PkiError(f'usages must contain "client auth", and besides it only {sorted(CLIENT_USAGES)}')
        uid = await self._uid(ref.tenant)
        asked = csr.spec.expiration_seconds
        life = min(max(timedelta(seconds=asked), SHORTEST), LONGEST) if asked else LONGEST
        return signer.sign_tenant_client(pem, ref.tenant, uid, usages, life)

    async def _uid(self, tenant: TenantName) -> str:
        if tenant == ROOT:
            return ""
        return (await self._client.get(Tenant, Ref(ROOT, "", tenant))).metadata.uid

    def _with(self, csr: CertificateSigningRequest, added: SigningCondition) -> list[Patch]:
        now = stamp(self._clock.now())
        stamped = msgspec.structs.replace(added, status="True", last_update_time=now, last_transition_time=now)
        found = [msgspec.to_builtins(c) | {"status": c.status} for c in (*(csr.status.conditions or ()), stamped)]
        return list(found)

    async def _decide(self, ref: Ref, csr: CertificateSigningRequest, decision: SigningCondition) -> None:
        await self._write(ref, csr, {"conditions": self._with(csr, decision)}, "approval")

    async def _write(self, ref: Ref, csr: CertificateSigningRequest, status: Patch, where: str) -> None:
        meta = {"uid": csr.metadata.uid, "resourceVersion": csr.metadata.resource_version}
        try:
            await self._client.patch(
                CertificateSigningRequest, ref, {"metadata": meta, "status": status}, subresource=where
            )
        except ApiError as error:
            if not error.is_not_found:
                raise
