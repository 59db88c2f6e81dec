"""Pod Security: a namespace's labels say which of the Pod Security Standards its pods must meet, are warned of or audited for.

Source: k8s.io/pod-security-admission/admission.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from polder.api.errors import Field, forbidden, invalid
from polder.api.meta import Raw
from polder.api.podsecurity import PREFIX, Standard, standards_of, violations
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.objects import decode_entry
from polder.store.protocol import Key, Prefix, Store

NAMESPACES: Final = "namespaces"
PODS_LIMIT: Final = 3000
"""Existing pods that are looked at when a namespace becomes stricter."""
WARNINGS_LIMIT: Final = 20
_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "replicationcontrollers": ("template",),
    "podtemplates": (),
    "replicasets.apps": ("template",),
    "deployments.apps": ("template",),
    "statefulsets.apps": ("template",),
    "daemonsets.apps": ("template",),
    "jobs.batch": ("template",),
    "cronjobs.batch": ("jobTemplate", "spec", "template"),
}
"""Where below ``spec`` the pod of other kinds is: they are warned of and audited, never refused."""


@dataclass(frozen=True, slots=True)
class PodSecurity:
    """Checks pods, what makes pods, and namespaces."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403, 422."""
        resource = context.resource.kind.resource
        if context.obj is None or context.verb not in {"create", "update"}:
            return
        if resource == NAMESPACES and not context.subresource:
            await self._namespace(context)
        elif resource == "pods" and context.subresource in {"", "ephemeralcontainers"}:
            if context.verb == "update" and not _matters(context):
                return
            await self._pod(context, context.obj, enforce=True)
        elif resource in _TEMPLATES and not context.subresource:
            template = _template(context.obj, _TEMPLATES[resource], resource)
            if template:
                await self._pod(context, template, enforce=False)

    async def _pod(self, context: AdmissionContext, pod: Raw, *, enforce: bool) -> None:
        entry = await self.store.get(Key(NAMESPACES, context.tenant, "", context.namespace))
        if entry is None or PREFIX.encode() not in entry.value:
            return
        standards, _ = standards_of(decode_entry(entry)["metadata"].get("labels") or {})
        meta, spec = pod.get("metadata") or {}, pod.get("spec") or {}
        if enforce:
            context.audit["pod-security.kubernetes.io/enforce-policy"] = str(standards["enforce"])
            broken = violations(standards["enforce"], meta, spec)
            if broken:
                why = f'violates PodSecurity "{standards["enforce"]}": {broken}'
                raise forbidden(context.resource.kind, context.name, why)
        audited = violations(standards["audit"], meta, spec)
        if audited:
            said = f'would violate PodSecurity "{standards["audit"]}": {audited}'
            context.audit["pod-security.kubernetes.io/audit-violations"] = said
        warned = violations(standards["warn"], meta, spec)
        if warned:
            context.warnings.append(f'would violate PodSecurity "{standards["warn"]}": {warned}')

    async def _namespace(self, context: AdmissionContext) -> None:
        assert context.obj is not None
        labels = context.obj["metadata"].get("labels") or {}
        old = ((context.old or {}).get("metadata") or {}).get("labels") or {}
        standards, problems = standards_of(labels)
        before, old_problems = standards_of(old)
        if problems and (context.verb == "create" or problems != old_problems):
            at = Field("metadata") / "labels"
            raise invalid(context.resource.kind, context.name, [at[n].invalid(v, why) for n, v, why in problems])
        if context.verb == "update" and standards["enforce"] != before["enforce"]:
            await self._existing(context, standards["enforce"])

    async def _existing(self, context: AdmissionContext, standard: Standard) -> None:
        """Warns of pods that stand there and break what is enforced from now on."""
        if standard.level == "privileged":
            return
        page = await self.store.list(Prefix("pods", context.tenant, context.name), limit=PODS_LIMIT)
        found: dict[str, list[str]] = {}
        for number, entry in enumerate(page.entries):
            if number % 64 == 63:
                await asyncio.sleep(0)
            pod = decode_entry(entry)
            broken = violations(standard, pod["metadata"], pod.get("spec") or {})
            if broken:
                found.setdefault(broken, []).append(entry.key.name)
        if not found:
            return
        context.warnings.append(
            f'existing pods in namespace "{context.name}" violate the new PodSecurity enforce level "{standard}"'
        )
        for broken, pods in list(found.items())[:WARNINGS_LIMIT]:
            others = f" (and {len(pods) - 1} other pod{'s' if len(pods) > 2 else ''})" if len(pods) > 1 else ""
            context.warnings.append(f"{pods[0]}{others}: {broken}")


def _template(obj: Raw, path: tuple[str, ...], resource: str) -> Raw:
    found: Raw = obj.get("template") or {} if resource == "podtemplates" else obj.get("spec") or {}
    for name in path:
        found = found.get(name) or {}
    return found


def _matters(context: AdmissionContext) -> bool:
    """Whether an update changes what the standards look at: of a pod that runs, little else can change."""
    old, new = context.old or {}, context.obj or {}
    if context.subresource == "ephemeralcontainers":
        return True
    images = [
        {c.get("name"): c.get("image") for kind in ("initContainers", "containers") for c in spec.get(kind) or []}
        for spec in (old.get("spec") or {}, new.get("spec") or {})
    ]
    annotations = [(o.get("metadata") or {}).get("annotations") or {} for o in (old, new)]
    watched = ("container.apparmor.security.beta.kubernetes.io/", "seccomp.security.alpha.kubernetes.io/")
    kept = [{k: v for k, v in a.items() if k.startswith(watched)} for a in annotations]
    return images[0] != images[1] or kept[0] != kept[1]
