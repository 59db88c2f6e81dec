"""Priorities of pods: the number comes from the PriorityClass, of the tenant or of what every tenant has.

Source: upstream's admission plugin Priority.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from polder.api.errors import ApiError, forbidden
from polder.api.kinds import built_in
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.objects import decode_entry
from polder.store.protocol import Key, Prefix, Store

CLASSES: Final = built_in("scheduling.k8s.io/v1", "priorityclasses")
DEFAULT_PREEMPTION: Final = "PreemptLowerPriority"


@dataclass(frozen=True, slots=True)
class Priorities:
    """Sets priority and preemption of new pods; keeps them in changed ones."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        if context.resource.kind.resource != "pods" or context.obj is None or context.subresource:
            return
        spec: Raw = context.obj["spec"]
        if context.verb == "update":
            old = (context.old or {}).get("spec") or {}
            for name in ("priority", "preemptionPolicy"):
                if spec.get(name) is None and old.get(name) is not None:
                    spec[name] = old[name]
        elif context.verb == "create":
            await self._complete(context, spec)

    async def _complete(self, context: AdmissionContext, spec: Raw) -> None:
        named = spec.get("priorityClassName") or ""
        found = await self._named(context, named) if named else await self._default(context.tenant)
        value = int((found or {}).get("value") or 0)
        if found is not None and not named:
            spec["priorityClassName"] = found["metadata"]["name"]
        given = spec.get("priority")
        if given is not None and given != value:
            raise _refused(
                context,
                f"the integer value of priority ({given}) must not be provided in pod spec; priority admission controller "
                f"computed {value} from the given PriorityClass name",
            )
        spec["priority"] = value
        policy = (found or {}).get("preemptionPolicy") or DEFAULT_PREEMPTION
        if spec.get("preemptionPolicy") not in (None, policy):
            raise _refused(
                context,
                f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
                f"priority admission controller computed {policy} from the given PriorityClass name",
            )
        spec["preemptionPolicy"] = policy

    async def _named(self, context: AdmissionContext, name: str) -> Raw:
        entry = await self.store.get(Key(CLASSES.resource, context.tenant, "", name))
        if entry is None:
            raise _refused(context, f"no PriorityClass with name {name} was found")
        return decode_entry(entry)

    async def _default(self, tenant: str) -> Raw | None:
        """The class of pods that name none: of several defaults the one with the lowest value."""
        found = await defaults(self.store, tenant)
        return min(found, key=lambda c: int(c.get("value") or 0), default=None)


async def defaults(store: Store, tenant: str) -> list[Raw]:
    """The classes of a tenant that are marked as default."""
    page = await store.list(Prefix(CLASSES.resource, tenant))
    return [decode_entry(entry) for entry in page.entries if b'"globalDefault":true' in entry.value]


@dataclass(frozen=True, slots=True)
class OneDefault:
    """There is one default PriorityClass at most."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        if not context.concerns(CLASSES.resource, "create", "update") or not (context.obj or {}).get("globalDefault"):
            return
        for other in await defaults(self.store, context.tenant):
            name = other["metadata"]["name"]
            if name != context.name:
                raise _refused(
                    context, f"PriorityClass {name} is already marked as default. Only one default can exist"
                )


def _refused(context: AdmissionContext, why: str) -> ApiError:
    return forbidden(context.resource.kind, context.name, why)
