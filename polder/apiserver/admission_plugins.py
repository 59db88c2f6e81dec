"""Upstream's smaller admission plug-ins, and the list by which a server has them on or off.

Sources: upstream's documentation of admission controllers; plugin/pkg/admission (alwayspullimages, exec, securitycontext/scdeny,
storage/storageclass/setdefault, network/defaultingressclass, runtimeclass).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from polder.api.errors import forbidden, not_found
from polder.api.kinds import Kind, built_in
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.objects import decode_entry
from polder.base.ids import TenantName
from polder.store.protocol import Key, Prefix, Store

STORAGE_CLASSES: Final = built_in("storage.k8s.io/v1", "storageclasses")
INGRESS_CLASSES: Final = built_in("networking.k8s.io/v1", "ingressclasses")
RUNTIME_CLASSES: Final = built_in("node.k8s.io/v1", "runtimeclasses")
_DEFAULT_STORAGE: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_DEFAULT_INGRESS: Final = ("ingressclass.kubernetes.io/is-default-class",)


def _containers(spec: Raw) -> list[Raw]:
    return [c for kind in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(kind) or []]


def _is_pod(context: AdmissionContext) -> bool:
    return context.resource.kind.resource == "pods" and context.obj is not None


class AlwaysPullImages:
    """Every image is pulled with the pod's own credentials, so that none is used that another pulled."""

    async def admit(self, context: AdmissionContext) -> None:
        """Sets imagePullPolicy of new pods and new ephemeral containers."""
        below = context.subresource
        if not _is_pod(context) or context.verb not in {"create", "update"} or below not in {"", "ephemeralcontainers"}:
            return
        if context.verb == "update" and not below:
            return
        assert context.obj is not None
        for container in _containers(context.obj["spec"]):
            container["imagePullPolicy"] = "Always"


class SecurityContextDeny:
    """Refuses pods that set what may raise their rights: users, groups, SELinux options."""

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        if not context.concerns("pods", "create", "update") or context.obj is None:
            return
        spec = context.obj["spec"]
        for field in ("supplementalGroups", "seLinuxOptions", "runAsUser", "fsGroup"):
            self._check(context, spec.get("securityContext") or {}, field, "pod.Spec.SecurityContext")
        for container in _containers(spec):
            for field in ("seLinuxOptions", "runAsUser"):
                self._check(context, container.get("securityContext") or {}, field, "SecurityContext")

    def _check(self, context: AdmissionContext, security: Raw, field: str, where: str) -> None:
        if security.get(field) is not None:
            why = f"{where}.{field[0].upper()}{field[1:]} is forbidden"
            raise forbidden(context.resource.kind, context.name, why)


class DenyServiceExternalIPs:
    """No Service takes external IPs, with which a namespace could take what others of its tenant send there."""

    async def admit(self, context: AdmissionContext) -> None:
        """Those that a Service has may stay. Raises ApiError 403."""
        if not context.concerns("services", "create", "update") or context.obj is None:
            return
        had = ((context.old or {}).get("spec") or {}).get("externalIPs") or ()
        if any(address not in had for address in context.obj["spec"].get("externalIPs") or ()):
            raise forbidden(context.resource.kind, context.name, "Use of external IPs is denied by admission control.")


@dataclass(frozen=True, slots=True)
class DenyExecOnPrivileged:
    """Nobody gets into a pod that has the host's rights or namespaces."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        if context.verb != "connect" or context.subresource not in {"exec", "attach"}:
            return
        entry = await self.store.get(Key("pods", context.tenant, context.namespace, context.name))
        if entry is None:
            raise not_found(context.resource.kind, context.name)
        spec = decode_entry(entry).get("spec") or {}
        for field in ("hostPID", "hostIPC"):
            if spec.get(field):
                raise self._refused(context, f"a container using host {field.removeprefix('host')}")
        if any((c.get("securityContext") or {}).get("privileged") for c in _containers(spec)):
            raise self._refused(context, "a privileged container")

    def _refused(self, context: AdmissionContext, what: str) -> Exception:
        return forbidden(context.resource.kind, context.name, f"cannot exec into or attach to {what}")


@dataclass(frozen=True, slots=True)
class DefaultClass:
    """Gives new objects of a kind the class that is marked as the default, the newest of several."""

    store: Store
    resource: str
    classes: Kind
    field: str
    marks: tuple[str, ...]
    older: str = ""

    async def admit(self, context: AdmissionContext) -> None:
        """Sets the field where nothing is said."""
        if not context.concerns(self.resource, "create") or context.obj is None:
            return
        spec = context.obj.setdefault("spec", {})
        annotations = context.obj["metadata"].get("annotations") or {}
        if spec.get(self.field) is not None or (self.older and self.older in annotations):
            return
        name = await self._default(context.tenant)
        if name:
            spec[self.field] = name

    async def _default(self, tenant: TenantName) -> str:
        page = await self.store.list(Prefix(self.classes.resource, tenant))
        found = [decode_entry(entry)["metadata"] for entry in page.entries if b"is-default-class" in entry.value]
        marked = [m for m in found if any((m.get("annotations") or {}).get(mark) == "true" for mark in self.marks)]
        marked.sort(key=lambda meta: str(meta["name"]))
        newest = max((str(meta.get("creationTimestamp") or "") for meta in marked), default="")
        return next((str(m["name"]) for m in marked if str(m.get("creationTimestamp") or "") == newest), "")


@dataclass(frozen=True, slots=True)
class RuntimeClasses:
    """Gives new pods the overhead, node selector and tolerations of their RuntimeClass."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        if not context.concerns("pods", "create") or context.obj is None:
            return
        spec: Raw = context.obj["spec"]
        named = spec.get("runtimeClassName")
        if not named:
            if spec.get("overhead"):
                raise self._refused(context, "Pod Overhead set without corresponding RuntimeClass defined Overhead")
            return
        entry = await self.store.get(Key(RUNTIME_CLASSES.resource, context.tenant, "", named))
        if entry is None:
            raise self._refused(context, f'pod rejected: RuntimeClass "{named}" not found')
        found = decode_entry(entry)
        self._overhead(context, spec, (found.get("overhead") or {}).get("podFixed"))
        self._place(context, spec, found.get("scheduling") or {})

    def _overhead(self, context: AdmissionContext, spec: Raw, fixed: Any) -> None:
        if fixed and spec.get("overhead") and spec["overhead"] != fixed:
            raise self._refused(context, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
        if spec.get("overhead") and not fixed:
            raise self._refused(context, "Pod Overhead set without corresponding RuntimeClass defined Overhead")
        if fixed:
            spec["overhead"] = dict(fixed)

    def _place(self, context: AdmissionContext, spec: Raw, scheduling: Raw) -> None:
        selector = spec.get("nodeSelector") or {}
        for key, value in (scheduling.get("nodeSelector") or {}).items():
            if selector.get(key, value) != value:
                wanted, said = f"scheduling.nodeSelector[{key}] = {value}", f"nodeSelector[{key}] = {selector[key]}"
                why = f"conflict: runtimeClass.{wanted}; pod.spec.{said}"
                raise self._refused(context, why)
            spec["nodeSelector"] = {**(spec.get("nodeSelector") or {}), key: value}
        more = [t for t in scheduling.get("tolerations") or [] if t not in (spec.get("tolerations") or [])]
        if more:
            spec["tolerations"] = [*(spec.get("tolerations") or []), *more]

    def _refused(self, context: AdmissionContext, why: str) -> Exception:
        return forbidden(context.resource.kind, context.name, why)


def default_storage(store: Store) -> DefaultClass:
    """DefaultStorageClass."""
    older = "volume.beta.kubernetes.io/storage-class"
    return DefaultClass(store, "persistentvolumeclaims", STORAGE_CLASSES, "storageClassName", _DEFAULT_STORAGE, older)


def default_ingress(store: Store) -> DefaultClass:
    """DefaultIngressClass."""
    older = "kubernetes.io/ingress.class"
    resource = "ingresses.networking.k8s.io"
    return DefaultClass(store, resource, INGRESS_CLASSES, "ingressClassName", _DEFAULT_INGRESS, older)
