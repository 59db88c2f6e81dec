"""The declarative table of kinds: what discovery, routing, printing and the client know about each."""

from __future__ import annotations

from dataclasses import dataclass

from polder.api import core, discovery, extensions, polder
from polder.api.meta import Object


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind in one group and version. ``group`` is empty for core."""

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

    @property
    def api_version(self) -> str:
        """``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """``plural.group``, ``plural`` alone for core: the store's name for it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def path(self) -> str:
        """The URL prefix: ``/api/v1`` or ``/apis/group/version``."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


ALL = ("all",)
P = "polder.dev"

BUILT_IN: tuple[Kind, ...] = (
    Kind("", "v1", "Namespace", "namespaces", "namespace", False, ("ns",), (), ("status", "finalize"), core.Namespace),
    Kind("", "v1", "Node", "nodes", "node", False, ("no",), (), ("status",), core.Node),
    Kind("", "v1", "Pod", "pods", "pod", True, ("po",), ALL, ("status", "binding", "log"), core.Pod),
    Kind("", "v1", "Service", "services", "service", True, ("svc",), ALL, ("status",), core.Service),
    Kind("", "v1", "Event", "events", "event", True, ("ev",), (), (), core.Event),
    Kind("", "v1", "ConfigMap", "configmaps", "configmap", True, ("cm",), (), (), core.ConfigMap),
    Kind("", "v1", "Secret", "secrets", "secret", True, (), (), (), core.Secret),
    Kind("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", True, ("sa",), (), ("token",),
         core.ServiceAccount),
    Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice", True, (), (), (),
         discovery.EndpointSlice),
    Kind("coordination.k8s.io", "v1", "Lease", "leases", "lease", True, (), (), (), discovery.Lease),
    Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions",
         "customresourcedefinition", False, ("crd", "crds"), ("api-extensions",), ("status",),
         extensions.CustomResourceDefinition),
    Kind(P, "v1alpha1", "Tenant", "tenants", "tenant", False, (), ("polder",), ("status",), polder.Tenant),
    Kind(P, "v1alpha1", "Segment", "segments", "segment", False, (), (), (), polder.Segment),
    Kind(P, "v1alpha1", "Network", "networks", "network", True, ("net",), ("polder",), ("status",), polder.Network),
    Kind(P, "v1alpha1", "Router", "routers", "router", True, (), ("polder",), ("status",), polder.Router),
    Kind(P, "v1alpha1", "Port", "ports", "port", True, (), ("polder",), ("status",), polder.Port),
    Kind(P, "v1alpha1", "Address", "addresses", "address", True, ("addr",), ("polder",), (), polder.Address),
)  # fmt: skip

PLATFORM_ONLY = frozenset({f"tenants.{P}", f"segments.{P}", "nodes"})
"""Kept in root only. (A tenant sees nodes as a projection.)"""
POLDER_WRITTEN = frozenset({f"routers.{P}", f"ports.{P}", f"addresses.{P}", f"segments.{P}"})
"""Written by Polder's identities only."""

BY_TYPE: dict[type[Object], Kind] = {k.type: k for k in BUILT_IN if k.type is not None}


def kind_of(kind: type[Object]) -> Kind:
    """The table's row of a typed kind."""
    return BY_TYPE[kind]
