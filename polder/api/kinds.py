"""The declarative table of kinds: what discovery, routing, printing and the client know about each.

The rows are what upstream's release 1.36 serves by default, in the order of its groups, then Polder's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from polder.api import (
    addresses,
    autoscaling,
    batch,
    certificates,
    clusterroles,
    core,
    discovery,
    endpoints,
    extensions,
    netpolicies,
    polder,
    policy,
    resourcemetrics,
    sets,
    storagefacts,
    storageusers,
    workloads,
)
from polder.api.meta import Object
from polder.api.nodefacts import RuntimeClassFacts, ScheduledNode
from polder.api.podfacts import ControlledPod, ScheduledPod

VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
"""What a stored kind can do."""
CREATE: Final = ("create",)
"""What a review can do: it is answered and forgotten."""
READ: Final = ("get", "list")
"""What can be done with what is computed."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind in one group and version. ``group`` is empty for core.

    ``stored_as`` names the store's resource where several groups share rows; versions of one group share theirs anyway.
    The first row of the table with that ``resource`` is the form that is stored (see ``STORED_FORM``). Of a kind that
    is not ``stored`` the store has nothing: it is computed, or answered and forgotten. ``warning`` is told with every
    answer: what a deprecated kind's users should know.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    type: type[Object] | None = None
    stored_as: str = ""
    stored: bool = True
    verbs: tuple[str, ...] = VERBS
    warning: str = ""

    @property
    def api_version(self) -> str:
        """``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """``plural.group``, ``plural`` alone for core: how messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def resource(self) -> str:
        """The store's name for it: ``stored_as``, or ``qualified``."""
        return self.stored_as or self.qualified

    @property
    def path(self) -> str:
        """The URL prefix: ``/api/v1`` or ``/apis/group/version``."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


ALL: Final = ("all",)
EXTENSIONS: Final = ("api-extensions",)
POLDER: Final = ("polder",)
STATUS: Final = ("status",)
SCALED: Final = ("scale", "status")
P: Final = "polder.dev"


def _kind(api_version: str, kind: str, plural: str, *short: str, sub: tuple[str, ...] = (), **more: object) -> Kind:
    """A namespaced kind; ``more`` are fields of Kind."""
    group, _, version = api_version.rpartition("/")
    row = Kind(group, version, kind, plural, kind.lower(), True, short, (), sub)
    return replace(row, **more)  # type: ignore[arg-type]  # the names are Kind's, the tests build every row


def _wide(api_version: str, kind: str, plural: str, *short: str, sub: tuple[str, ...] = (), **more: object) -> Kind:
    """A cluster-scoped kind."""
    return _kind(api_version, kind, plural, *short, sub=sub, namespaced=False, **more)


def _review(api_version: str, kind: str, plural: str, *, namespaced: bool = False) -> Kind:
    return _kind(api_version, kind, plural, namespaced=namespaced, stored=False, verbs=CREATE)


_CORE: Final = (
    _review("v1", "Binding", "bindings", namespaced=True),
    _wide("v1", "ComponentStatus", "componentstatuses", "cs", stored=False, verbs=("get", "list"),
          warning="v1 ComponentStatus is deprecated in v1.19+"),
    _kind("v1", "ConfigMap", "configmaps", "cm", type=core.ConfigMap),
    _kind("v1", "Endpoints", "endpoints", "ep", type=endpoints.Endpoints,
          warning="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    _kind("v1", "Event", "events", "ev", type=core.Event),
    _kind("v1", "LimitRange", "limitranges", "limits"),
    _wide("v1", "Namespace", "namespaces", "ns", sub=("finalize", "status"), type=core.Namespace,
          verbs=tuple(verb for verb in VERBS if verb != "deletecollection")),
    _wide("v1", "Node", "nodes", "no", sub=("proxy", "status"), type=core.Node),
    _kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", sub=STATUS),
    _wide("v1", "PersistentVolume", "persistentvolumes", "pv", sub=STATUS),
    _kind("v1", "Pod", "pods", "po", categories=ALL, type=core.Pod,
          sub=("attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "proxy", "resize",
               "status")),
    _kind("v1", "PodTemplate", "podtemplates"),
    _kind("v1", "ReplicationController", "replicationcontrollers", "rc", categories=ALL, sub=SCALED,
          type=workloads.ReplicationController),
    _kind("v1", "ResourceQuota", "resourcequotas", "quota", sub=STATUS, type=policy.ResourceQuota),
    _kind("v1", "Secret", "secrets", type=core.Secret),
    _kind("v1", "ServiceAccount", "serviceaccounts", "sa", sub=("token",), type=core.ServiceAccount),
    _kind("v1", "Service", "services", "svc", categories=ALL, sub=("proxy", "status"), type=core.Service),
)  # fmt: skip

_WORK: Final = (
    _wide("apiregistration.k8s.io/v1", "APIService", "apiservices", categories=EXTENSIONS, sub=STATUS),
    _kind("apps/v1", "ControllerRevision", "controllerrevisions", type=sets.ControllerRevision),
    _kind("apps/v1", "DaemonSet", "daemonsets", "ds", categories=ALL, sub=STATUS, type=sets.DaemonSet),
    _kind("apps/v1", "Deployment", "deployments", "deploy", categories=ALL, sub=SCALED, type=workloads.Deployment),
    _kind("apps/v1", "ReplicaSet", "replicasets", "rs", categories=ALL, sub=SCALED, type=workloads.ReplicaSet),
    _kind("apps/v1", "StatefulSet", "statefulsets", "sts", categories=ALL, sub=SCALED, type=sets.StatefulSet),
    _kind("events.k8s.io/v1", "Event", "events", "ev", stored_as="events"),
    _review("authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews"),
    _review("authentication.k8s.io/v1", "TokenReview", "tokenreviews"),
    _review("authorization.k8s.io/v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", namespaced=True),
    _review("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
    _review("authorization.k8s.io/v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews"),
    _review("authorization.k8s.io/v1", "SubjectAccessReview", "subjectaccessreviews"),
    _kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", categories=ALL, sub=STATUS,
          type=autoscaling.Autoscaler),
    _kind("autoscaling/v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", categories=ALL, sub=STATUS),
    _kind("batch/v1", "CronJob", "cronjobs", "cj", categories=ALL, sub=STATUS, type=batch.CronJob),
    _kind("batch/v1", "Job", "jobs", categories=ALL, sub=STATUS, type=batch.Job),
    _wide("certificates.k8s.io/v1", "CertificateSigningRequest", "certificatesigningrequests", "csr",
          sub=("approval", "status"), type=certificates.CertificateSigningRequest),
)  # fmt: skip

_NETWORK: Final = (
    _wide("networking.k8s.io/v1", "IngressClass", "ingressclasses"),
    _kind("networking.k8s.io/v1", "Ingress", "ingresses", "ing", sub=STATUS),
    _wide("networking.k8s.io/v1", "IPAddress", "ipaddresses", "ip", type=addresses.IPAddress),
    _kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "netpol", type=netpolicies.NetworkPolicy),
    _wide(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        "clusternetworkpolicies",
        "cnp",
        sub=STATUS,
        type=netpolicies.ClusterNetworkPolicy,
    ),
    _wide("networking.k8s.io/v1", "ServiceCIDR", "servicecidrs", sub=STATUS, type=addresses.ServiceCIDR),
)

_POLICY: Final = (
    _kind(
        "policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", sub=STATUS, type=policy.PodDisruptionBudget
    ),
    _wide("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings"),
    _wide("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", type=clusterroles.ClusterRole),
    _kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    _kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
    _wide("storage.k8s.io/v1", "CSIDriver", "csidrivers"),
    _wide("storage.k8s.io/v1", "CSINode", "csinodes"),
    _kind("storage.k8s.io/v1", "CSIStorageCapacity", "csistoragecapacities"),
    _wide("storage.k8s.io/v1", "StorageClass", "storageclasses", "sc"),
    _wide("storage.k8s.io/v1", "VolumeAttachment", "volumeattachments", sub=STATUS),
    _wide("storage.k8s.io/v1", "VolumeAttributesClass", "volumeattributesclasses", "vac"),
)

_ADMISSION: Final = tuple(
    _wide("admissionregistration.k8s.io/v1", kind, plural, categories=EXTENSIONS, sub=sub)
    for kind, plural, sub in (
        ("MutatingAdmissionPolicy", "mutatingadmissionpolicies", ()),
        ("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", ()),
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", ()),
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", STATUS),
        ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", ()),
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", ()),
    )
)

_CLUSTER: Final = (
    _wide("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", "crd", "crds",
          categories=EXTENSIONS, sub=STATUS, type=extensions.CustomResourceDefinition),
    _wide("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "pc"),
    _kind("coordination.k8s.io/v1", "Lease", "leases", type=discovery.Lease),
    _wide("node.k8s.io/v1", "RuntimeClass", "runtimeclasses"),
    _kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", type=discovery.EndpointSlice),
    _wide("resource.k8s.io/v1", "DeviceClass", "deviceclasses"),
    _kind("resource.k8s.io/v1", "ResourceClaim", "resourceclaims", sub=STATUS),
    _kind("resource.k8s.io/v1", "ResourceClaimTemplate", "resourceclaimtemplates"),
    _wide("resource.k8s.io/v1", "ResourceSlice", "resourceslices"),
    _wide("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", "flowschemas", sub=STATUS),
    _wide("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", sub=STATUS),
    _wide("metrics.k8s.io/v1beta1", "NodeMetrics", "nodes", stored=False, verbs=READ, type=resourcemetrics.NodeMetrics),
    _kind("metrics.k8s.io/v1beta1", "PodMetrics", "pods", stored=False, verbs=READ, type=resourcemetrics.PodMetrics),
)  # fmt: skip

_OWN: Final = (
    _wide(f"{P}/v1alpha1", "Tenant", "tenants", categories=POLDER, sub=STATUS, type=polder.Tenant),
    _wide(f"{P}/v1alpha1", "Segment", "segments", type=polder.Segment),
    _kind(f"{P}/v1alpha1", "Network", "networks", "net", categories=POLDER, sub=STATUS, type=polder.Network),
    _kind(f"{P}/v1alpha1", "Router", "routers", categories=POLDER, type=polder.Router),
    _kind(f"{P}/v1alpha1", "Port", "ports", categories=POLDER, sub=STATUS, type=polder.Port),
    _kind(f"{P}/v1alpha1", "Address", "addresses", "addr", categories=POLDER, type=polder.Address),
    _wide(
        f"{P}/v1alpha1",
        "AddressPool",
        "addresspools",
        "pool",
        categories=POLDER,
        sub=STATUS,
        type=addresses.AddressPool,
    ),
    _wide(
        f"{P}/v1alpha1",
        "ExternalAddress",
        "externaladdresses",
        "extaddr",
        categories=POLDER,
        sub=STATUS,
        type=addresses.ExternalAddress,
    ),
)

BUILT_IN: Final[tuple[Kind, ...]] = (*_CORE, *_WORK, *_NETWORK, *_POLICY, *_ADMISSION, *_CLUSTER, *_OWN)

PLATFORM_ONLY = frozenset({f"{name}.{P}" for name in ("tenants", "segments", "addresspools", "externaladdresses")})
"""Kept in root only."""
POLDER_WRITTEN = frozenset(
    {f"{name}.{P}" for name in ("routers", "ports", "addresses", "segments", "externaladdresses")}
)
"""Written by Polder's identities only."""

BY_TYPE: dict[type[Object], Kind] = {k.type: k for k in BUILT_IN if k.type is not None}
# What caches keep of a pod is asked for as a pod.
_PODS: Final = (ControlledPod, ScheduledPod, autoscaling.MeasuredPod, storageusers.UsingPod)
BY_TYPE.update(dict.fromkeys(_PODS, BY_TYPE[core.Pod]))
BY_TYPE[autoscaling.KnownAutoscaler] = BY_TYPE[autoscaling.Autoscaler]
BY_TYPE[ScheduledNode] = BY_TYPE[core.Node]
BY_TYPE.update({batch.KnownJob: BY_TYPE[batch.Job], batch.KnownCronJob: BY_TYPE[batch.CronJob]})
BY_TYPE.update({sets.KnownStatefulSet: BY_TYPE[sets.StatefulSet], sets.KnownDaemonSet: BY_TYPE[sets.DaemonSet]})
BY_PATH: Final = {(k.group, k.version, k.plural): k for k in BUILT_IN}
BY_TYPE.update(
    {
        RuntimeClassFacts: BY_PATH["node.k8s.io", "v1", "runtimeclasses"],
        storagefacts.Claim: BY_PATH["", "v1", "persistentvolumeclaims"],
        storagefacts.Volume: BY_PATH["", "v1", "persistentvolumes"],
        storagefacts.StorageClassFacts: BY_PATH["storage.k8s.io", "v1", "storageclasses"],
    }
)
STORED_FORM: Final[dict[str, Kind]] = {k.resource: k for k in reversed(BUILT_IN) if k.stored}
"""By the store's resource: the kind, group and version in which its rows are written."""


def kind_of(kind: type[Object]) -> Kind:
    """The table's row of a typed kind."""
    return BY_TYPE[kind]


def built_in(api_version: str, plural: str) -> Kind:
    """The table's row of ``apps/v1``, ``deployments``. Raises KeyError."""
    group, _, version = api_version.rpartition("/")
    return BY_PATH[group, version, plural]
