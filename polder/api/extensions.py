"""The apiextensions.k8s.io/v1 kind, as far as Polder's controllers read it (the API server reads the raw object)."""

from __future__ import annotations

from polder.api.meta import Object, Struct


class DefinitionNames(Struct, frozen=True, kw_only=True):
    """What the custom kind is called."""

    plural: str = ""
    kind: str = ""


class DefinitionVersion(Struct, frozen=True, kw_only=True):
    """One version of the custom kind; the schema is left out."""

    name: str
    served: bool = False
    storage: bool = False


class DefinitionSpec(Struct, frozen=True, kw_only=True):
    """Which kind is defined."""

    group: str = ""
    names: DefinitionNames = DefinitionNames()
    scope: str = "Namespaced"
    versions: list[DefinitionVersion] = []


class CustomResourceDefinition(Object, frozen=True, kw_only=True):
    """apiextensions.k8s.io/v1 CustomResourceDefinition. Read only: writing it whole would lose the schemas."""

    spec: DefinitionSpec = DefinitionSpec()
