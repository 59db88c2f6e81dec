"""Admission of pods: their service account with its token volume, and how long they bear an unreachable node.

Source: Kubernetes documentation, "ServiceAccount admission controller", "Bound service account token volume",
"Taint based evictions".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from polder.api.core import Pod, ServiceAccount
from polder.api.errors import Field, forbidden, invalid
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.api.staticpods import is_mirror, static_problems
from polder.api.unsupported import unsupported, unsupported_ephemeral
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.objectmeta import generate_name
from polder.apiserver.objects import decode_entry
from polder.apiserver.types import Role
from polder.base.ids import ROOT
from polder.store.protocol import Key, Store

PODS: Final = kind_of(Pod)
ACCOUNTS: Final = kind_of(ServiceAccount)
TOKEN_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
TOKEN_VOLUME: Final = "kube-api-access-"  # noqa: S105 - the beginning of a name
TOKEN_SECONDS: Final = 3607
UNREACHABLE_SECONDS: Final = 300
FILE_MODE: Final = 0o644
_PLACES: Final = frozenset({Role.PLATFORM_ADMIN})
"""Who may say where a tenant's pod runs when it is made. Not even Polder's controllers: what they make is after a template of
the tenant's, and through the tenant's policies.
"""


@dataclass(frozen=True, slots=True)
class PodAccounts:
    """Gives a pod its service account and, if wanted, the volume with the account's token."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403 if the account is missing."""
        if not context.concerns(PODS.resource, "create"):
            return
        assert context.obj is not None
        if context.tenant == ROOT and is_mirror(context.obj):
            return  # it shows a pod that runs without the API, as nobody
        spec: Raw = context.obj["spec"]
        name = spec.get("serviceAccountName") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        entry = await self.store.get(Key(ACCOUNTS.resource, context.tenant, context.namespace, name))
        if entry is None:
            why = f'error looking up service account {context.namespace}/{name}: serviceaccount "{name}" not found'
            raise forbidden(PODS, context.name, why)
        account = decode_entry(entry)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]
        if _wants_token(spec, account):
            _mount_token(spec)


def _wants_token(spec: Raw, account: Raw) -> bool:
    """The pod's word, else the account's, else yes."""
    for holder in (spec, account):
        said = holder.get("automountServiceAccountToken")
        if said is not None:
            return bool(said)
    return True


def _mount_token(spec: Raw) -> None:
    """One projected volume, in every container that has nothing at its place."""
    volumes: list[Raw] = spec.get("volumes") or []
    name = next((v["name"] for v in volumes if v.get("name", "").startswith(TOKEN_VOLUME)), "")
    wanted = [c for c in _containers(spec) if not _is_mounted(c)]
    if not wanted:
        return
    if not name:
        name = generate_name(TOKEN_VOLUME)
        spec["volumes"] = [*volumes, _token_volume(name)]
    for container in wanted:
        mount = {"name": name, "readOnly": True, "mountPath": TOKEN_PATH}
        container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]


def _containers(spec: Raw) -> list[Raw]:
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def _is_mounted(container: Raw) -> bool:
    return any(m.get("mountPath") == TOKEN_PATH for m in container.get("volumeMounts") or [])


def _token_volume(name: str) -> Raw:
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    authority = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    sources: list[Raw] = [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": authority},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": FILE_MODE}}


class UnsupportedPods:
    """What a pod asks for and does not get is refused, never ignored."""

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 422 naming every such field."""
        added = context.obj if context.subresource == "ephemeralcontainers" else None
        if problems := unsupported_ephemeral(added or {}, context.tenant == ROOT):
            raise invalid(PODS, context.name, problems)
        if not context.concerns(PODS.resource, "create"):
            return
        assert context.obj is not None
        problems = unsupported(context.obj, context.tenant == ROOT)
        if context.tenant == ROOT and is_mirror(context.obj):
            problems += static_problems(context.obj["spec"])
        placed = context.tenant != ROOT or context.who.role is Role.SERVICE_ACCOUNT
        if placed and context.who.role not in _PLACES and context.obj["spec"].get("nodeName"):
            field = Field("spec") / "nodeName"
            problems.append(field.forbidden("the scheduler chooses the node of a tenant's pod; use nodeSelector"))
        if problems:
            raise invalid(PODS, context.name, problems)


class PodTolerations:
    """A pod stays for some time on a node that is not ready or unreachable, unless it says otherwise."""

    async def admit(self, context: AdmissionContext) -> None:
        """Adds the two tolerations; also where a client writes its own list over them."""
        if not context.concerns(PODS.resource, "create", "update"):
            return
        assert context.obj is not None
        spec: Raw = context.obj["spec"]
        found: list[Raw] = spec.get("tolerations") or []
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
            if not any(_bears(t, key) for t in found):
                added = {"key": key, "operator": "Exists", "effect": "NoExecute"}
                found = [*found, {**added, "tolerationSeconds": UNREACHABLE_SECONDS}]
        spec["tolerations"] = found


def _bears(toleration: dict[str, Any], key: str) -> bool:
    """Whether a toleration already speaks of the taint."""
    return toleration.get("key", "") in {"", key} and toleration.get("effect", "") in {"", "NoExecute"}
