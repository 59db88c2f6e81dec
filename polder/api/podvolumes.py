"""Volumes of a pod: core/v1 as Polder's own components read it, fields under upstream's names."""

from __future__ import annotations

import msgspec

from polder.api.meta import Struct


class FieldRef(Struct, frozen=True, kw_only=True):
    """A field of the pod, by JSON path."""

    field_path: str
    api_version: str = "v1"


class ResourceFieldRef(Struct, frozen=True, kw_only=True):
    """A resource of a container."""

    resource: str
    container_name: str = ""
    divisor: str = "0"


class KeyToPath(Struct, frozen=True, kw_only=True):
    """A key shown at a path."""

    key: str
    path: str
    mode: int | None = None


class EmptyDir(Struct, frozen=True, kw_only=True):
    """A scratch directory of the pod."""

    medium: str = ""
    size_limit: str | int | None = None


class HostPath(Struct, frozen=True, kw_only=True):
    """A path of the node (platform only)."""

    path: str
    type: str = ""


class ConfigMapVolume(Struct, frozen=True, kw_only=True):
    """A ConfigMap as files."""

    name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool = False


class SecretVolume(Struct, frozen=True, kw_only=True):
    """A Secret as files."""

    secret_name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool = False


class SecretProjection(Struct, frozen=True, kw_only=True):
    """A Secret inside a projected volume."""

    name: str = ""
    items: list[KeyToPath] | None = None
    optional: bool = False


class TokenProjection(Struct, frozen=True, kw_only=True):
    """A service-account token inside a projected volume."""

    path: str
    audience: str = ""
    expiration_seconds: int = 3600


class DownwardItem(Struct, frozen=True, kw_only=True):
    """A field of the pod as a file."""

    path: str
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    mode: int | None = None


class DownwardVolume(Struct, frozen=True, kw_only=True):
    """Fields of the pod as files."""

    items: list[DownwardItem] | None = None
    default_mode: int | None = None


class ProjectedSource(Struct, frozen=True, kw_only=True):
    """One source of a projected volume."""

    secret: SecretProjection | None = None
    config_map: ConfigMapVolume | None = None
    service_account_token: TokenProjection | None = None
    downward_api: DownwardVolume | None = msgspec.field(default=None, name="downwardAPI")


class ProjectedVolume(Struct, frozen=True, kw_only=True):
    """Several sources in one directory."""

    sources: list[ProjectedSource] | None = None
    default_mode: int | None = None


class ImageVolume(Struct, frozen=True, kw_only=True):
    """The files of an image, read-only."""

    reference: str = ""
    pull_policy: str = ""


class ClaimVolume(Struct, frozen=True, kw_only=True):
    """A PersistentVolumeClaim of the pod's namespace."""

    claim_name: str = ""
    read_only: bool = False


class EphemeralVolume(Struct, frozen=True, kw_only=True):
    """A claim made for this pod, named ``POD-VOLUME``; its template is the controller's to read."""


class Volume(Struct, frozen=True, kw_only=True):
    """One volume of a pod; the kinds that Polder mounts. Others are refused on admission."""

    name: str
    empty_dir: EmptyDir | None = None
    host_path: HostPath | None = None
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    image: ImageVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None
    ephemeral: EphemeralVolume | None = None
    projected: ProjectedVolume | None = None
    downward_api: DownwardVolume | None = msgspec.field(default=None, name="downwardAPI")
