"""Conversion between the versions and groups in which one row is served.

Rows are stored in one form (``kinds.STORED_FORM``). A conversion is declared by a pair of forms: fields that only have
other names are a table; what needs more is a function. Everything else of an object is the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from polder.api.convert_hpa import hpa_v1_to_v2, hpa_v2_to_v1
from polder.api.kinds import STORED_FORM, Kind
from polder.api.meta import Raw


@dataclass(frozen=True, slots=True)
class _Step:
    """From one form to another: top-level fields that are named otherwise, then what ``change`` makes of the object."""

    renamed: Mapping[str, str] = field(default_factory=dict)
    change: Callable[[Raw], Raw] | None = None


_EVENT: Final = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_STEPS: Final[Mapping[tuple[str, str, str], _Step]] = {
    ("Event", "v1", "events.k8s.io/v1"): _Step(_EVENT),
    ("Event", "events.k8s.io/v1", "v1"): _Step({new: old for old, new in _EVENT.items()}),
    ("HorizontalPodAutoscaler", "autoscaling/v1", "autoscaling/v2"): _Step(change=hpa_v1_to_v2),
    ("HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v1"): _Step(change=hpa_v2_to_v1),
}


def is_stored_form(kind: Kind) -> bool:
    """Whether the kind's objects are stored as they are served (true for kinds that are not built in)."""
    return STORED_FORM.get(kind.resource, kind).api_version == kind.api_version


def stored_form(kind: Kind) -> Kind:
    """The kind in whose form the rows of a built-in kind are stored; the kind itself where it is not built in."""
    return kind if is_stored_form(kind) else STORED_FORM[kind.resource]


def convert(obj: Raw, to: Kind) -> Raw:
    """The object in the form of ``to``; itself where it has that form. The argument stays as it is.

    Raises KeyError for two forms that share no rows.
    """
    said = obj.get("apiVersion", "")
    if said == to.api_version:
        return obj
    step = _STEPS[to.kind, str(said), to.api_version]
    found = {step.renamed.get(key, key): value for key, value in obj.items()}
    found["apiVersion"] = to.api_version
    return step.change(found) if step.change else found
