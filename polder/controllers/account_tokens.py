"""Secrets of the type ``kubernetes.io/service-account-token``: filled for the account that they name, gone with it."""

from __future__ import annotations

import base64
from urllib.parse import quote, urlencode

from polder.api.core import Secret, ServiceAccount
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.reading import find, remove

TYPE = "kubernetes.io/service-account-token"
ACCOUNT = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"


def account_of(secret: Secret) -> str:
    """The account that a token's Secret names."""
    return (secret.metadata.annotations or {}).get(ACCOUNT, "")


class AccountTokenController:
    """Reconciles such a Secret; key: its reference. The token is the API server's to sign."""

    def __init__(self, client: Client, root_ca: str) -> None:
        self._client = client
        self._root_ca = root_ca

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. Raises ApiError."""
        secret = await find(self._client, Secret, ref)
        if secret is None or secret.type != TYPE or secret.metadata.deletion_timestamp is not None:
            return None
        name = account_of(secret)
        account = await find(self._client, ServiceAccount, Ref(ref.tenant, ref.namespace, name)) if name else None
        uid = (secret.metadata.annotations or {}).get(ACCOUNT_UID, "")
        if account is None or (uid and uid != account.metadata.uid):
            await remove(self._client, Secret, ref, secret)
            return None
        await self._fill(ref, secret, account)
        return None

    async def _fill(self, ref: Ref, secret: Secret, account: ServiceAccount) -> None:
        have, wanted = secret.data or {}, {"ca.crt": self._root_ca, "namespace": ref.namespace}
        data = {key: _encoded(value) for key, value in wanted.items() if have.get(key) != _encoded(value)}
        if not have.get("token"):
            data["token"] = _encoded(await self._token(ref, account))
        annotations = secret.metadata.annotations or {}
        if not data and annotations.get(ACCOUNT_UID):
            return
        meta = {"uid": secret.metadata.uid, "resourceVersion": secret.metadata.resource_version}
        patch = {"metadata": {**meta, "annotations": {ACCOUNT_UID: account.metadata.uid}}, "data": data}
        await self._client.patch(Secret, ref, patch)

    async def _token(self, ref: Ref, account: ServiceAccount) -> str:
        asked = {
            "namespace": ref.namespace,
            "secret": ref.name,
            "account": account.metadata.name,
            "uid": account.metadata.uid,
        }
        path = f"/tenants/{quote(ref.tenant)}/polder/v1/account-token?{urlencode(asked)}"
        return (await self._client.raw("POST", path)).decode()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
