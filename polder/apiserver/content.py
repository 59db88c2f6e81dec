"""What an object says, as opposed to its metadata: conforming to the kind's type, defaults, validation.

The rules are ``polder.api``'s for built-in kinds and the compiled schema's for custom ones.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import orjson

from polder.api import conform, strategies
from polder.api.convert import convert, is_stored_form, stored_form
from polder.api.defaults import default, initial_status
from polder.api.errors import invalid
from polder.api.meta import Raw
from polder.api.validation import validate_create, validate_update
from polder.api.validation.meta import validate_meta_update
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.aside import Aside
from polder.apiserver.catalog import Resource
from polder.apiserver.options import FieldValidation
from polder.apiserver.parts import PARTS


@dataclass(frozen=True, slots=True)
class Content:
    """A conformed object and what to warn of."""

    obj: Raw
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Odd:
    """What field validation is told of a body besides its fields: sentences about keys that stood twice, and the text of the
    patch, where it was one.
    """

    repeated: tuple[str, ...] = ()
    patch: str = ""


NOTHING_ODD: Final = Odd()
Beside = tuple[Aside, str]
"""Where large work goes, and whose it is."""
_OWNERS_WARNING: Final = (
    ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject "
    "such requests as early as 1.24; please fix your requests;"
)


async def _conformed(resource: Resource, obj: Raw) -> tuple[Raw, tuple[str, ...]]:
    """A built-in object in its stored form, and its unknown fields."""
    found = conform.conform(resource.kind, obj)
    if is_stored_form(resource.kind):
        return found.obj, found.unknown
    form = stored_form(resource.kind)
    return conform.conform(form, convert(found.obj, form)).obj, found.unknown


async def take(
    resource: Resource, obj: Raw, validation: FieldValidation, odd: Odd = NOTHING_ODD, beside: Beside | None = None
) -> Content:
    """The object in the form in which its kind is stored; a large one is read ``beside`` the event loop. Raises ApiError 400,
    422.
    """
    if resource.custom is not None:
        obj, unknown = await resource.custom.take(obj)
        sentences = (*odd.repeated, *map(conform.unknown_field, unknown))
    else:
        given = obj
        size = len(orjson.dumps(obj)) if beside is not None else 0
        aside, tenant = beside or (Aside(), "")
        obj, unknown = await aside.run(tenant, size, lambda: _conformed(resource, given))
        sentences = (*map(conform.unknown_field, unknown), *odd.repeated)
    warnings = _single_owners(obj)
    if not sentences or validation is FieldValidation.IGNORE:
        return Content(obj, warnings)
    if validation is FieldValidation.STRICT:
        if odd.patch:
            raise conform.strict_patch_error(odd.patch, sentences)
        raise conform.strict_error(resource.kind, sentences)
    return Content(obj, (*sentences, *warnings))


def _single_owners(obj: Raw) -> tuple[str, ...]:
    """Leaves out owners that are named twice, in place; what to warn of."""
    owners = obj["metadata"].get("ownerReferences") or []
    if len(owners) < 2:
        return ()
    kept = list({orjson.dumps(owner, option=orjson.OPT_SORT_KEYS): owner for owner in owners}.values())
    if len(kept) == len(owners):
        return ()
    obj["metadata"]["ownerReferences"] = kept
    count = Counter(str(owner.get("uid", "")) for owner in owners)
    twice = " ".join(uid for uid, times in count.items() if times > 1)
    return (f"{_OWNERS_WARNING} duplicate UID(s) observed: [{twice}]",)


def shown(resource: Resource, obj: Raw) -> Raw:
    """A stored object in the form in which the resource serves it."""
    return obj if resource.custom is not None else convert(obj, resource.kind)


def complete(resource: Resource, obj: Raw) -> None:
    """Fills in what the kind's defaults say, in place; the object has its name. Custom ones got theirs in ``take``."""
    if resource.custom is None:
        default(resource.kind, obj)


def begin_status(resource: Resource, obj: Raw) -> None:
    """What a new object's status is, whatever the caller sent; nodes keep theirs. After ``complete``."""
    if resource.custom is not None or not resource.has_status:
        return
    status = initial_status(resource.kind, obj)
    if status is not None:
        obj["status"] = status


def prepare(context: AdmissionContext) -> None:
    """Puts in what the server decides, when everybody who may change the object has."""
    assert context.obj is not None
    if context.resource.custom is None:
        strategies.prepare(context.resource.kind, context.obj, context.old, counts=context.subresource != "status")


async def validate(context: AdmissionContext) -> None:
    """Raises ApiError 422 naming every field that breaks a rule."""
    kind, obj, old = context.resource.kind, context.obj, context.old
    assert obj is not None
    part = PARTS.get((kind.resource, context.subresource))
    if part is not None and old is not None:
        problems = [*validate_meta_update(kind, obj["metadata"], old["metadata"]), *part.check(obj, old)]
    elif context.resource.custom is not None:
        verdict = await context.resource.custom.check(obj, old, context.subresource)
        problems = verdict.problems
        context.warnings += verdict.warnings
    elif old is None:
        problems = validate_create(kind, obj)
    else:
        problems = validate_update(kind, obj, old)
    if problems:
        raise invalid(kind, context.name, problems)
