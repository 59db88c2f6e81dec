"""CertificateSigningRequests: who asks is who asked, and only who may decide and sign for a signer does.

Source: upstream's strategy of the kind, and its admission plugins CertificateApproval, CertificateSigning and
CertificateSubjectRestriction.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from polder.api.errors import ApiError, forbidden
from polder.api.kinds import built_in
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.hooks import Authorizer
from polder.apiserver.types import RequestInfo
from polder.system.pki import PkiError, read_request

REQUESTS: Final = built_in("certificates.k8s.io/v1", "certificatesigningrequests").resource
CLIENT: Final = "kubernetes.io/kube-apiserver-client"
MASTERS: Final = "system:masters"


@dataclass(frozen=True, slots=True)
class Requesters:
    """The spec's user, UID, groups and extra are the caller's, whatever was sent."""

    async def admit(self, context: AdmissionContext) -> None:
        """Changes new requests."""
        if not context.concerns(REQUESTS, "create") or context.obj is None:
            return
        who, spec = context.who, context.obj.get("spec") or {}
        given: Raw = {"username": who.name, "uid": who.uid, "groups": list(who.groups)}
        given["extra"] = {name: list(values) for name, values in who.extra.items()}
        kept = {name: value for name, value in spec.items() if name not in given}
        context.obj["spec"] = {**kept, **{name: value for name, value in given.items() if value}}


@dataclass(frozen=True, slots=True)
class SignerRights:
    """Approving and signing need the rights ``approve`` and ``sign`` for the signer; masters come by no certificate."""

    authorizer: Authorizer

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        if context.resource.kind.resource != REQUESTS or context.obj is None:
            return
        spec = context.obj.get("spec") or {}
        signer = str(spec.get("signerName") or "")
        if context.verb == "create" and not context.subresource:
            _check_subject(context, signer, spec)
        elif context.verb == "update" and context.subresource == "approval":
            await self._check(context, "approve", signer, "approve")
        elif context.verb == "update" and context.subresource == "status" and _changes_certificate(context):
            await self._check(context, "sign", signer, "sign")

    async def _check(self, context: AdmissionContext, verb: str, signer: str, word: str) -> None:
        domain = signer.partition("/")[0]
        for name in (signer, f"{domain}/*"):
            asked = RequestInfo(
                context.tenant, verb, f"/apis/certificates.k8s.io/v1/signers/{name}", "certificates.k8s.io", "v1",
                "signers", "", "", name,
            )  # fmt: skip
            if (await self.authorizer.decide(context.who, asked)).allowed:
                return
        raise _refused(context, f'user not permitted to {word} requests with signerName "{signer}"')


def _changes_certificate(context: AdmissionContext) -> bool:
    new, old = (((obj or {}).get("status") or {}).get("certificate") for obj in (context.obj, context.old))
    return bool(new != old)


def _check_subject(context: AdmissionContext, signer: str, spec: Raw) -> None:
    if signer != CLIENT:
        return
    try:
        request = read_request(base64.b64decode(spec.get("request") or "", validate=True))
    except (PkiError, binascii.Error, TypeError):
        return  # validation, or the signer, refuses it
    if MASTERS in request.organizations:
        raise _refused(context, f"use of {CLIENT} signer with {MASTERS} group is not allowed")


def _refused(context: AdmissionContext, why: str) -> ApiError:
    return forbidden(context.resource.kind, context.name, why)
