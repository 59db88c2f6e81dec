"""What every namespace has: the ServiceAccount ``default`` and the ConfigMap by which pods trust the API server."""

from __future__ import annotations

from polder.api.core import ConfigMap, Namespace, ServiceAccount
from polder.api.errors import ApiError
from polder.api.meta import ObjectMeta
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.settings import ControllerSettings

ACCOUNT = "default"
CERTIFICATE = "kube-root-ca.crt"
CERTIFICATE_KEY = "ca.crt"


class NamespaceContentController:
    """Reconciles what a namespace must hold; key: the Namespace's reference."""

    def __init__(self, client: Client, settings: ControllerSettings) -> None:
        self._client = client
        self._settings = settings

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass."""
        try:
            namespace = await self._client.get(Namespace, ref)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        if namespace.metadata.deletion_timestamp is None:
            await self._account(ref)
            await self._certificate(ref)
        return None

    async def _account(self, namespace: Ref) -> None:
        at = Ref(namespace.tenant, namespace.name, ACCOUNT)
        try:
            await self._client.get(ServiceAccount, at)
        except ApiError as error:
            if not error.is_not_found:
                raise
            await self._create(ServiceAccount(api_version="v1", kind="ServiceAccount", metadata=_named(at)), at)

    async def _certificate(self, namespace: Ref) -> None:
        at = Ref(namespace.tenant, namespace.name, CERTIFICATE)
        data = {CERTIFICATE_KEY: self._settings.root_ca}
        try:
            known = await self._client.get(ConfigMap, at)
        except ApiError as error:
            if not error.is_not_found:
                raise
            await self._create(ConfigMap(api_version="v1", kind="ConfigMap", metadata=_named(at), data=data), at)
            return
        if known.data != data:
            strange = {key: None for key in known.data or {} if key != CERTIFICATE_KEY}
            await self._client.patch(ConfigMap, at, {"data": {**strange, **data}})

    async def _create(self, obj: ServiceAccount | ConfigMap, at: Ref) -> None:
        try:
            await self._client.create(at.tenant, obj)
        except ApiError as error:
            if not error.is_already_exists:
                raise


def _named(at: Ref) -> ObjectMeta:
    return ObjectMeta(name=at.name, namespace=at.namespace)
