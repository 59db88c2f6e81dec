"""What extension API servers believe our proxy by: the ConfigMap ``extension-apiserver-authentication`` in ``kube-system``.

Upstream's names and keys (kube-apiserver, clusterauthenticationtrust). Each tenant's names the certificate of its own
proxy alone. The authority of client certificates is not in it: it signs for all tenants, and an extension server would
take another tenant's user for its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from polder.api.meta import Raw
from polder.api.polder import SYSTEM_NAMESPACE
from polder.apiserver.objects import encode, terms
from polder.apiserver.tenancy import TENANT_KIND, Tenants, record_of
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import ConflictError, Key, Prefix, Put, Store
from polder.system.pki import FRONT_PROXY, Pki

CONFIG_MAP = "extension-apiserver-authentication"
PROXY_NAME = "system:polder:front-proxy:"
"""With the tenant's name, the common name of the certificate that its extension servers see."""
PAGE = 500


def proxy_trust(pki: Pki, tenant: TenantName) -> dict[str, str]:
    """The ConfigMap's data."""

    def texts(*values: str) -> str:
        return orjson.dumps(values).decode()

    return {
        "requestheader-allowed-names": texts(PROXY_NAME + tenant),
        "requestheader-client-ca-file": pki.authority(FRONT_PROXY).bundle.decode(),
        "requestheader-extra-headers-prefix": texts("X-Remote-Extra-"),
        "requestheader-group-headers": texts("X-Remote-Group"),
        "requestheader-uid-headers": texts("X-Remote-Uid"),
        "requestheader-username-headers": texts("X-Remote-User"),
    }


@dataclass(frozen=True, slots=True)
class ProxyTrust:
    """Keeps the ConfigMaps as they should be. ``make`` is the row of a new one."""

    store: Store
    pki: Pki
    tenants: Tenants
    make: Callable[[TenantName], Put]

    async def publish(self) -> None:
        """Puts right those of all living tenants: at the start, and when the authority is rolled over."""
        await self._publish(ROOT)
        after = None
        while True:
            page = await self.store.list(Prefix(TENANT_KIND.resource, ROOT), limit=PAGE, after=after)
            for entry in page.entries:
                record = record_of(entry.value)
                if record.phase == "Active":
                    await self._publish(record.name)
            after = page.after
            if after is None:
                return

    async def _publish(self, tenant: TenantName) -> None:
        entry = await self.store.get(Key("configmaps", tenant, SYSTEM_NAMESPACE, CONFIG_MAP))
        wanted = proxy_trust(self.pki, tenant)
        if entry is None:
            put = self.make(tenant)
        else:
            raw: Raw = orjson.loads(entry.value)
            if raw.get("data") == wanted:
                return
            changed = {**raw, "data": wanted}
            put = Put(entry.key, encode(changed), entry.revision, terms(changed))
        try:
            await self.store.commit([put])
        except ConflictError:
            return  # another server does the same
