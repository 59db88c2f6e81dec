"""What an APIService may say: upstream's rules, and Polder's own: what the server serves itself is never another's.

Source: kube-aggregator's pkg/apis/apiregistration/validation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from polder.api.errors import Field, FieldError, forbidden, invalid
from polder.api.meta import Raw
from polder.api.names import dns_subdomain
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.aggregation import OWN_GROUPS
from polder.apiserver.builtin_apis import API_SERVICES

_SPEC: Final = Field("spec")
_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?$")
_KUBERNETES: Final = ("default", "kubernetes")


def problems_of(name: str, spec: Raw) -> Iterator[FieldError]:
    """Every field that breaks a rule."""
    group, version = str(spec.get("group") or ""), str(spec.get("version") or "")
    if name != f"{version}.{group}":
        why = f'must be `spec.version+"."+spec.group`: "{version}.{group}"'
        yield (Field("metadata") / "name").invalid(name, why)
    if not group and version != "v1":
        yield (_SPEC / "group").required("only v1 may have an empty group and it better be legacy kube")
    for why in dns_subdomain(group) if group else ():
        yield (_SPEC / "group").invalid(group, why)
    if not _LABEL.match(version) or len(version) > 63:
        yield (_SPEC / "version").invalid(version, "must be a DNS-1035 label")
    for field, most in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        number = spec.get(field) or 0
        if not 0 < number <= most:
            yield (_SPEC / field).invalid(number, f"must be positive and less than {most}")
    yield from _service(spec)


def _service(spec: Raw) -> Iterator[FieldError]:
    service, bundle, insecure = spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify")
    if not service:
        if bundle:
            yield (_SPEC / "caBundle").invalid(f"{len(bundle)} bytes", "local APIServices may not have a caBundle")
        if insecure:
            yield (_SPEC / "insecureSkipTLSVerify").invalid(
                insecure, "local APIServices may not have insecureSkipTLSVerify"
            )
        return
    at = _SPEC / "service"
    for field in ("namespace", "name"):
        if not service.get(field):
            yield (at / field).required()
    port = service.get("port", 443)
    if not isinstance(port, int) or not 0 < port < 65536:
        yield (at / "port").invalid(port, "port is not valid: must be between 1 and 65535, inclusive")
    if insecure and bundle:
        yield (_SPEC / "insecureSkipTLSVerify").invalid(insecure, "may not be true if caBundle is present")
    if (service.get("namespace"), service.get("name")) == _KUBERNETES:
        yield at.forbidden("the API server cannot be an aggregated API of itself")


class ApiServices:
    """Checks APIServices when they are written."""

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403, 422."""
        if not context.concerns(API_SERVICES, "create", "update") or context.obj is None:
            return
        spec = context.obj.get("spec") or {}
        found = list(problems_of(context.name, spec))
        if found:
            raise invalid(context.resource.kind, context.name, found)
        group = str(spec.get("group") or "")
        if spec.get("service") and group in OWN_GROUPS:
            named = f'"{group}"' if group else "core"
            why = f"spec.service: the group {named} is served by this server and cannot be given to another"
            raise forbidden(context.resource.kind, context.name, why)
