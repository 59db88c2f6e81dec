"""The options of a deletion: grace, propagation, preconditions, dry run (meta/v1 DeleteOptions)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from polder.api.errors import Field, bad_request
from polder.api.meta import Raw
from polder.apiserver.body import parse_object
from polder.apiserver.options import flag, invalid_options

_POLICIES: Final = ("Foreground", "Background", "Orphan")
_KINDS: Final = frozenset({"DeleteOptions", "", None})


class Preconditions(msgspec.Struct, rename="camel"):
    """metav1.Preconditions."""

    uid: str | None = None
    resource_version: str | None = None


class DeleteOptions(msgspec.Struct, rename="camel"):
    """metav1.DeleteOptions."""

    grace_period_seconds: int | None = None
    propagation_policy: str | None = None
    orphan_dependents: bool | None = None
    preconditions: Preconditions | None = None
    dry_run: list[str] | None = None

    @property
    def policy(self) -> str:
        """Orphan, Background, Foreground, or empty."""
        if self.orphan_dependents is not None:
            return "Orphan" if self.orphan_dependents else "Background"
        return self.propagation_policy or ""

    def shown(self) -> Raw:
        """As policies and webhooks see them."""
        found: Raw = msgspec.to_builtins(self)
        said = {key: value for key, value in found.items() if value is not None}
        return {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", **said}


def read_options(body: bytes, media: str, query: Mapping[str, str]) -> DeleteOptions:
    """The options in the body or, where that is empty, in the query. Raises ApiError 400, 422."""
    options = options_of(parse_object(body, media) if body.strip() else _from_query(query))
    if query.get("dryRun") and not options.dry_run:
        options.dry_run = [query["dryRun"]]
    check_options(options)
    return options


def options_of(raw: Raw) -> DeleteOptions:
    """Options from JSON, not checked yet. Raises ApiError 400."""
    if raw.get("kind") not in _KINDS:
        raise bad_request(f"the kind in the data ({raw['kind']}) does not match the expected kind (DeleteOptions)")
    try:
        return msgspec.convert(raw, DeleteOptions)
    except msgspec.ValidationError as mistake:
        raise bad_request(f"DeleteOptions cannot be handled: {mistake}") from None


def check_options(options: DeleteOptions) -> None:
    """Makes a negative grace one second. Raises ApiError 422."""
    problems, policy = [], options.propagation_policy
    at = Field("propagationPolicy")
    if options.orphan_dependents is not None and policy is not None:
        problems.append(at.invalid(policy, "orphanDependents and deletionPropagation cannot be both set"))
    if policy is not None and policy not in _POLICIES:
        problems.append(at.not_supported(policy, [*_POLICIES, "nil"]))
    if options.dry_run not in (None, [], ["All"]):
        problems.append(Field("dryRun").not_supported(options.dry_run, ["All"]))
    if problems:
        raise invalid_options("DeleteOptions", problems)
    if options.grace_period_seconds is not None and options.grace_period_seconds < 0:
        options.grace_period_seconds = 1


def _from_query(query: Mapping[str, str]) -> Raw:
    raw: Raw = {}
    if "gracePeriodSeconds" in query:
        try:
            raw["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
        except ValueError:
            raise bad_request("gracePeriodSeconds: must be a number of seconds") from None
    if "propagationPolicy" in query:
        raw["propagationPolicy"] = query["propagationPolicy"]
    orphan = flag(query, "orphanDependents")
    if orphan is not None:
        raw["orphanDependents"] = orphan
    return raw
