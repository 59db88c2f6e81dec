"""The kinds that a CustomResourceDefinition (apiextensions/v1) makes.

What a definition's status says is in ``crd_status``, its own rules in ``validation.crds``, those of schemas in ``crd_schema``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import orjson

from polder.api import names, structural
from polder.api.apply_types import Type, type_of_custom
from polder.api.bytecache import ByteCache
from polder.api.cel.program import FOREVER, Budget
from polder.api.correlation import Pair
from polder.api.embedded import validate_embedded
from polder.api.errors import Field, FieldError, FieldErrorType
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.rules import Checking, Ruled, plan, rule_texts
from polder.api.scale import ScalePaths, declared_scale
from polder.api.schema_validate import TURN_LIMIT, WORK_LIMIT, validate, validate_lists
from polder.api.structural import RULES, Work
from polder.api.validation.meta import validate_meta, validate_meta_update

PROBLEMS_SHOWN: Final = 64
"""Problems of one custom object that an answer names."""
SCHEMAS: Final[ByteCache[bytes, CompiledSchema]] = ByteCache(48 << 20, 16 << 20)
"""Equal schemas of different tenants are one object in memory."""
WEIGHT: Final = 8
"""Bytes of memory that a byte of a schema's JSON takes as Python objects."""
RULE_LIMIT: Final = 400
"""Characters of an expression that compiles within a turn of the event loop."""
RULES_LIMIT: Final = 30_000
SCHEMA_LIMIT: Final = 64 * 1024
"""Bytes of a schema with rules up to which their types are found within a turn."""
RULE_WEIGHT: Final = 400
"""Bytes of memory that a character of a rule takes as a program."""
_BLOCKING: Final = frozenset(
    {
        FieldErrorType.NOT_SUPPORTED, FieldErrorType.REQUIRED, FieldErrorType.TOO_LONG, FieldErrorType.TOO_MANY,
        FieldErrorType.TYPE_INVALID,
    }
)  # fmt: skip
_BLOCKED: Final = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)
_REPLICAS_MOST: Final = 2**31 - 1
_STANDARD_FINALIZERS: Final = frozenset({"orphan", "foregroundDeletion", "kubernetes"})


class CompiledSchema:
    """A schema with what is made of it when it is first needed."""

    def __init__(self, text: bytes) -> None:
        found: Raw = orjson.loads(text)
        found["required"] = [key for key in found.get("required") or () if key != "metadata"]
        self.schema = found
        self.size = len(text)
        self._prepared = False
        rules = list(rule_texts(found)) if RULES.encode() in text and self.size <= SCHEMA_LIMIT else []
        self.rule_size = sum(map(len, rules))
        too_many = self.rule_size > RULES_LIMIT or max(map(len, rules), default=0) > RULE_LIMIT
        self.is_large = too_many or (RULES.encode() in text and self.size > SCHEMA_LIMIT)
        """Whether its rules are too many or too long to be compiled between the turns of an event loop."""

    @property
    def weight(self) -> int:
        """Bytes of memory, roughly."""
        return self.size * WEIGHT + (0 if self.is_large else self.rule_size * RULE_WEIGHT)

    def prepare(self) -> Iterator[int]:
        """Compiles the rules one by one; yields the length of each, so that others may have a turn."""
        if not self._prepared and self.rules is not None:
            yield from self.rules.compile()
        self._prepared = True

    @cached_property
    def merging(self) -> Type:
        """How server-side apply merges objects of this schema."""
        return type_of_custom(self.schema)

    @cached_property
    def rules(self) -> Ruled | None:
        """The rules in CEL, their programs not yet compiled."""
        return plan(self.schema)


def compiled_schema(text: bytes, owner: str = "") -> CompiledSchema:
    """The schema of this JSON, shared by content. ``owner`` is the tenant whose share it takes."""
    found = SCHEMAS.get(text)
    if found is None:
        found = CompiledSchema(text)
        SCHEMAS.put(text, found, found.weight, owner)
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of an object: what is wrong, and what is wrong but was so before."""

    problems: list[FieldError]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CustomVersion:
    """One served version of a custom kind."""

    kind: Kind
    text: bytes
    """The schema's JSON with sorted keys: equal schemas have equal texts."""
    columns: tuple[Mapping[str, Any], ...] = ()
    selectable: tuple[str, ...] = ()
    """Fields by which its objects can be selected: ``spec.color``."""
    scale: ScalePaths | None = None
    warning: str = ""
    """What a client of a deprecated version is told."""
    storage: str = ""
    """The version in which objects are stored."""
    webhook: Mapping[str, Any] | None = field(default=None, hash=False)
    """What converts between versions; None where only ``apiVersion`` changes."""
    owner: str = ""
    uniform: bool = True
    """Whether all versions have this schema: then a row is sound for each, whichever it was written in."""
    texts: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    """The schemas of all served versions, by their names, as ``text`` is this one's."""

    def type_in(self, version: str) -> Type | None:
        """How server-side apply merges objects in a served version of the kind; None for another version."""
        text = self.texts.get(version)
        return None if text is None else compiled_schema(text, self.owner).merging

    @property
    def compiled(self) -> CompiledSchema:
        """The schema with what is made of it."""
        return compiled_schema(self.text, self.owner)

    @property
    def schema(self) -> Raw:
        """The structural schema, which equal definitions share."""
        return self.compiled.schema

    def prune(self, obj: Raw, work: Work | None = None) -> tuple[Raw, tuple[str, ...]]:
        """The object without fields that the schema does not know, with its defaults; and the paths of these fields. Raises
        TooLongError where the work ends, ApiError 422.
        """
        found, unknown = structural.prune(self.schema, obj, work)
        defaulted: Raw = structural.apply_defaults(self.schema, found, work)
        return defaulted, tuple(unknown)

    def validate(self, obj: Raw, old: Raw | None, subresource: str = "", budget: Budget | None = None) -> Verdict:
        """What breaks the rules of metadata or the schema. Raises TooLongError past the budget's turn, ApiError 422."""
        meta = obj.get("metadata") or {}
        if old is None:
            found = list(validate_meta(self.kind, meta))
        else:
            found = list(validate_meta_update(self.kind, meta, old.get("metadata") or {}))
        in_turn = budget is not None and budget.turn < FOREVER
        work = Work(TURN_LIMIT if in_turn else WORK_LIMIT, "steps to check", in_turn)
        found += itertools.islice(self._schema_problems(obj, old, subresource, work), PROBLEMS_SHOWN)
        if self.scale is not None:
            found += _scale_problems(self.scale, obj, subresource)
        found += itertools.islice(validate_embedded(self.schema, obj, Field(), is_root=True), PROBLEMS_SHOWN)
        if old is None or not any(validate_lists(self.schema, old, Field(), work)):
            found += itertools.islice(validate_lists(self.schema, obj, Field(), work), PROBLEMS_SHOWN)
        warnings = tuple(finalizer_warnings(obj, old)) if not subresource else ()
        rules = self.compiled.rules
        if rules is None:
            return Verdict(found, warnings)
        if any(problem.type in _BLOCKING for problem in found):
            blocked = FieldError(FieldErrorType.INVALID, "<nil>", None, _BLOCKED)
            return Verdict([*found, blocked], warnings)
        checking = Checking(budget or Budget())
        found += checking.run(rules, obj, old, Field())
        return Verdict(found, (*warnings, *checking.warnings))

    def _schema_problems(self, obj: Raw, old: Raw | None, subresource: str, work: Work) -> list[FieldError]:
        if subresource == "status":
            part = (self.schema.get("properties") or {}).get("status")
            if "status" not in obj or not isinstance(part, dict):
                return []
            pair = Pair(obj["status"], old["status"], part) if old is not None and "status" in old else None
            return list(validate(part, obj["status"], Field("status"), work, pair))
        body = {key: value for key, value in obj.items() if key != "metadata"}
        pair = Pair(body, {k: v for k, v in old.items() if k != "metadata"}, self.schema) if old is not None else None
        return list(validate(self.schema, body, Field(), work, pair))


def _scale_problems(scale: ScalePaths, obj: Raw, subresource: str) -> list[FieldError]:
    """Numbers of replicas where the scale subresource reads them."""
    found = []
    for path in (scale.status,) if subresource == "status" else (scale.spec, scale.status):
        value, at = dig(obj, path), Field("." + ".".join(path))
        if value is None or not path:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value % 1:
            found.append(at.invalid(0, f"{at.path} accessor error: {value} is not a whole number"))
        elif value < 0:
            found.append(at.invalid(value, "should be a non-negative integer"))
        elif value > _REPLICAS_MOST:
            found.append(at.invalid(value, f"should be less than or equal to {_REPLICAS_MOST}"))
    if scale.selector and not isinstance(dig(obj, scale.selector) or "", str):
        at = Field("." + ".".join(scale.selector))
        found.append(at.invalid("", f"{at.path} accessor error: it is not a string"))
    return found


def dig(obj: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of plain fields; None where there is none."""
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def to_versions(crd: Raw, owner: str = "") -> list[CustomVersion]:
    """The served versions. Their schemas are parsed when they are needed."""
    spec = crd["spec"]
    conversion = spec.get("conversion") or {}
    webhook = conversion.get("webhook") if conversion.get("strategy") == "Webhook" else None
    storage = next((version["name"] for version in spec["versions"] if version.get("storage")), "")
    uniform = all(version.get("schema") == spec["versions"][0].get("schema") for version in spec["versions"])
    served = [
        version
        for version in spec["versions"]
        if version.get("served") and isinstance((version.get("schema") or {}).get("openAPIV3Schema"), dict)
    ]
    texts = {v["name"]: orjson.dumps(v["schema"]["openAPIV3Schema"], option=orjson.OPT_SORT_KEYS) for v in served}
    return [_version(crd, version, storage, (webhook, owner, uniform, texts)) for version in served]


_More = tuple[Mapping[str, Any] | None, str, bool, Mapping[str, bytes]]


def _version(crd: Raw, version: Raw, storage: str, more: _More) -> CustomVersion:
    spec, subresources = crd["spec"], version.get("subresources") or {}
    kind = kind_of_version(crd, version["name"], tuple(key for key in ("status", "scale") if key in subresources))
    warning = ""
    if version.get("deprecated"):
        warning = version.get("deprecationWarning") or f"{spec['group']}/{version['name']} {kind.kind} is deprecated"
    return CustomVersion(
        kind,
        more[3][version["name"]],
        tuple(version.get("additionalPrinterColumns") or ()),
        tuple((each.get("jsonPath") or "").removeprefix(".") for each in version.get("selectableFields") or ()),
        declared_scale(subresources),
        warning,
        storage,
        *more,
    )


def kind_of_version(crd: Raw, version: str, subresources: tuple[str, ...] = ()) -> Kind:
    """One version of a definition's kind, under the names that it got."""
    spec = crd["spec"]
    accepted = (crd.get("status") or {}).get("acceptedNames") or {}
    given = accepted if accepted.get("plural") else spec["names"]
    return Kind(
        spec["group"],
        version,
        given["kind"],
        given["plural"],
        given.get("singular") or given["kind"].lower(),
        spec["scope"] == "Namespaced",
        tuple(given.get("shortNames") or ()),
        tuple(given.get("categories") or ()),
        subresources,
    )


def finalizer_warnings(obj: Raw, old: Raw | None) -> list[str]:
    """What to tell of finalizers that were added under names that others may use, too."""
    added = set((obj.get("metadata") or {}).get("finalizers") or ())
    added -= set(((old or {}).get("metadata") or {}).get("finalizers") or ())
    advice = "to avoid accidental conflicts with other finalizer writers"
    found = []
    for name in sorted(added):
        found += [f'metadata.finalizers: "{name}": {said}' for said in names.qualified_name(name)]
        if "/" not in name and name not in _STANDARD_FINALIZERS:
            path = " including a path (/)" if "." in name else ""
            found.append(f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name{path} {advice}')
    return found
