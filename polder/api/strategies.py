"""What writing an object of a kind means besides its fields: what its generation counts, whether a PUT may be blind or may
create, and what the server puts into it itself. Upstream's ``strategy.go`` of each kind, as a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from polder.api import services
from polder.api.defaults_pods import qos_class
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.polder import TENANT_FINALIZER

Prepare = Callable[[Raw, Raw | None], None]
"""Changes the new object in place; the second is what stands, None for a creation."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """How objects of a kind are written.

    ``counted`` are the fields whose changes count up ``metadata.generation``, besides ``labels`` and ``annotations`` of
    the metadata where these are named (``metadata.labels``). ``first`` is the generation of a new object, 0 for none.
    ``blind``: a PUT needs no resource version. ``puts``: a PUT of a name that is not there creates it.
    """

    counted: tuple[str, ...] = ()
    first: int = 0
    blind: bool = True
    puts: bool = False
    prepare: Prepare | None = None


def counting(*fields: str, **more: Any) -> Strategy:
    """A strategy that counts generations from 1."""
    return Strategy(fields, 1, **more)


def _daemon_set(new: Raw, old: Raw | None) -> None:
    """The generation of the template, kept in an annotation as apps/v1 shows it."""
    annotations = dict(new["metadata"].get("annotations") or {})
    before = _template_generation(old) if old else 0
    changed = old is None or new["spec"].get("template") != (old.get("spec") or {}).get("template")
    annotations[TEMPLATE_GENERATION] = str(before + 1 if changed else before)
    new["metadata"]["annotations"] = annotations


def _template_generation(obj: Raw) -> int:
    said = (obj["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "")
    return int(said) if said.isdecimal() and len(said) < 19 else 1


TEMPLATE_GENERATION: Final = "deprecated.daemonset.template.generation"
_JOB_LABELS: Final = ("batch.kubernetes.io/", "")


def _job(new: Raw, old: Raw | None) -> None:
    """Unless the user chose a selector, one that nothing else matches: by the job's UID."""
    spec = new["spec"]
    if old is not None or spec.get("manualSelector"):
        return
    meta = spec.setdefault("template", {}).setdefault("metadata", {})
    labels = meta["labels"] = dict(meta.get("labels") or {})
    for prefix in _JOB_LABELS:
        labels.setdefault(f"{prefix}job-name", new["metadata"]["name"])
        labels.setdefault(f"{prefix}controller-uid", new["metadata"]["uid"])
    chosen = spec.setdefault("selector", {})
    chosen["matchLabels"] = {**(chosen.get("matchLabels") or {})}
    chosen["matchLabels"].setdefault("batch.kubernetes.io/controller-uid", new["metadata"]["uid"])
    if not new["metadata"].get("labels"):
        new["metadata"]["labels"] = dict(labels)


def _secret(new: Raw, old: Raw | None) -> None:
    """A secret keeps its type where none is named."""
    if old is not None and not new.get("type"):
        new["type"] = old.get("type", "")


_GATED: Final = "Scheduling is blocked due to non-empty scheduling gates"


def _pod(new: Raw, old: Raw | None) -> None:
    """A status without a class of service keeps the one that the spec gives."""
    status = new.setdefault("status", {})
    if not status.get("qosClass"):
        status["qosClass"] = ((old or {}).get("status") or {}).get("qosClass") or qos_class(new.get("spec") or {})
    if old is None and (new.get("spec") or {}).get("schedulingGates"):
        gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": _GATED}
        status["conditions"] = [*(c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"), gated]


def _claim(new: Raw, _: Raw | None) -> None:
    """The two fields for a claim's source say the same, where both can."""
    spec = new.setdefault("spec", {})
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source and not reference:
        spec["dataSourceRef"] = dict(source)
    elif reference and not source and not reference.get("namespace"):
        spec["dataSource"] = dict(reference)


def _service(new: Raw, old: Raw | None) -> None:
    services.drop_dependent(new, old)


def _tenant(new: Raw, old: Raw | None) -> None:
    """From its first moment a tenant goes only when the controller has emptied it."""
    finalizers = new["metadata"].get("finalizers") or []
    if old is None and TENANT_FINALIZER not in finalizers:
        new["metadata"]["finalizers"] = [*finalizers, TENANT_FINALIZER]


_RBAC: Final = Strategy(puts=True)
_WEBHOOKS: Final = counting("webhooks", blind=False)
_POLICY: Final = counting("spec", blind=False)
_ADMISSION: Final = "admissionregistration.k8s.io"
_TABLE: Final[dict[str, Strategy]] = {
    "pods": counting("spec", prepare=_pod),
    "podtemplates": counting("template"),
    "replicationcontrollers": counting("spec"),
    "secrets": Strategy(prepare=_secret),
    "services": Strategy(puts=True, prepare=_service),
    "endpoints": Strategy(puts=True),
    "events": Strategy(puts=True),
    "limitranges": Strategy(puts=True),
    "persistentvolumeclaims": Strategy(prepare=_claim),
    "deployments.apps": counting("spec", "metadata.annotations"),
    "replicasets.apps": counting("spec"),
    "statefulsets.apps": counting("spec"),
    "daemonsets.apps": counting("spec", prepare=_daemon_set),
    "jobs.batch": counting("spec", prepare=_job),
    "cronjobs.batch": counting("spec"),
    "ingresses.networking.k8s.io": counting("spec"),
    "ingressclasses.networking.k8s.io": counting("spec"),
    "networkpolicies.networking.k8s.io": counting("spec"),
    "clusternetworkpolicies.policy.networking.k8s.io": counting("spec", blind=False),
    "endpointslices.discovery.k8s.io": counting("endpoints", "ports", "addressType", "metadata.labels"),
    "poddisruptionbudgets.policy": counting("spec", blind=False),
    "priorityclasses.scheduling.k8s.io": counting(),
    "leases.coordination.k8s.io": Strategy(blind=False, puts=True),
    "runtimeclasses.node.k8s.io": Strategy(blind=False, puts=True),
    "csidrivers.storage.k8s.io": Strategy(("spec",), blind=False),
    "csinodes.storage.k8s.io": Strategy(blind=False),
    "csistoragecapacities.storage.k8s.io": Strategy(blind=False),
    "volumeattachments.storage.k8s.io": Strategy(blind=False),
    "deviceclasses.resource.k8s.io": counting("spec"),
    "resourceslices.resource.k8s.io": counting("spec"),
    "flowschemas.flowcontrol.apiserver.k8s.io": counting("spec"),
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": counting("spec"),
    "customresourcedefinitions.apiextensions.k8s.io": counting("spec", blind=False),
    "apiservices.apiregistration.k8s.io": Strategy(blind=False),
    f"mutatingwebhookconfigurations.{_ADMISSION}": _WEBHOOKS,
    f"validatingwebhookconfigurations.{_ADMISSION}": _WEBHOOKS,
    f"mutatingadmissionpolicies.{_ADMISSION}": _POLICY,
    f"mutatingadmissionpolicybindings.{_ADMISSION}": _POLICY,
    f"validatingadmissionpolicies.{_ADMISSION}": _POLICY,
    f"validatingadmissionpolicybindings.{_ADMISSION}": _POLICY,
    **{f"{kind}.rbac.authorization.k8s.io": _RBAC for kind in ("roles", "rolebindings", "clusterroles")},
    "clusterrolebindings.rbac.authorization.k8s.io": _RBAC,
    "tenants.polder.dev": counting("spec", prepare=_tenant),
    **{f"{kind}.polder.dev": counting("spec") for kind in ("networks", "routers", "ports", "addresspools")},
}
_ANY: Final = Strategy()


def strategy_of(kind: Kind) -> Strategy:
    """How objects of a built-in kind are written."""
    return _TABLE.get(kind.resource, _ANY)


def prepare(kind: Kind, new: Raw, old: Raw | None, *, counts: bool = True) -> None:
    """Puts into an object of a built-in kind what the server decides, in place, and counts its generation.

    It runs when the object has its defaults and everybody who may change it has had their turn; before validation.
    ``counts`` is false for a write of the status, which counts nothing, whatever of the metadata it changes.
    """
    found = strategy_of(kind)
    if found.prepare is not None:
        found.prepare(new, old)
    if old is None:
        new["metadata"].pop("generation", None)
        if found.first:
            new["metadata"]["generation"] = found.first
    elif counts and any(_part(new, name) != _part(old, name) for name in found.counted):
        new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


def _part(obj: Raw, name: str) -> Any:
    for step in name.split("."):
        obj = obj.get(step) or {}
    return obj
