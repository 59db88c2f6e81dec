"""The options of writes in the query: dryRun, fieldManager, fieldValidation, force.

Source: apimachinery, meta/v1 (CreateOptions, UpdateOptions, PatchOptions) and their validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from polder.api.errors import ApiError, Field, FieldError, bad_request, invalid
from polder.api.kinds import Kind
from polder.api.meta import Raw

MANAGER_LIMIT: Final = 128
"""Bytes of a field manager's name."""
_GROUP: Final = "meta.k8s.io"


class FieldValidation(Enum):
    """What happens to fields that the kind does not know: cut off silently, with warnings, or refused."""

    IGNORE = "Ignore"
    WARN = "Warn"
    STRICT = "Strict"


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """What a create, update or patch was asked to heed. ``manager`` is who will own the fields that are written."""

    dry_run: bool = False
    manager: str = ""
    validation: FieldValidation = FieldValidation.WARN
    force: bool = False
    said: Raw = field(default_factory=dict)

    def raw(self, kind: str) -> Raw:
        """As admission sees them."""
        return {"kind": kind, "apiVersion": f"{_GROUP}/v1", **self.said}


def write_options(kind: str, query: Mapping[str, str], agent: str, *, applies: bool = False) -> WriteOptions:
    """The options of a write. ``kind`` is CreateOptions, UpdateOptions or PatchOptions; ``agent`` the User-Agent, which names
    the manager of those who give no name. Raises ApiError 400, 422.
    """
    manager = query.get("fieldManager", "")
    problems = manager_problems(manager, Field("fieldManager"))
    if applies and not manager:
        problems.append(Field("fieldManager").required("is required for apply patch"))
    said = query.get("dryRun", "")
    if said not in ("", "All"):
        problems.append(Field("dryRun").not_supported([said], ["All"]))
    validation = query.get("fieldValidation", "")
    known = [""] + [value.value for value in FieldValidation]
    if validation not in known:
        problems.append(Field("fieldValidation").not_supported(validation, sorted(known)))
    force = flag(query, "force")
    if force is not None and kind == "PatchOptions" and not applies:
        problems.append(Field("force").forbidden("may not be specified for non-apply patch"))
    if problems:
        raise invalid_options(kind, problems)
    validates = FieldValidation(validation or "Warn")
    asked: Raw = {"dryRun": [said]} if said else {}
    asked.update((name, query[name]) for name in ("fieldManager", "fieldValidation") if query.get(name))
    return WriteOptions(said == "All", manager or manager_of_agent(agent), validates, bool(force), asked)


def invalid_options(kind: str, problems: list[FieldError]) -> ApiError:
    """422: options that break a rule."""
    return invalid(Kind(_GROUP, "v1", kind, kind.lower(), kind.lower()), "", problems)


def flag(query: Mapping[str, str], name: str) -> bool | None:
    """A parameter that is true or false; None where it is not there. Raises ApiError 400."""
    said = query.get(name)
    if said is None:
        return None
    if said in ("", "1", "t", "T", "true", "TRUE", "True"):
        return True
    if said in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise bad_request(f'{name}: "{said}" is neither true nor false')


def manager_problems(manager: str, at: Field) -> list[FieldError]:
    """What is wrong with a field manager's name."""
    found = []
    if len(manager.encode()) > MANAGER_LIMIT:
        found.append(at.too_long(MANAGER_LIMIT))
    for place, letter in enumerate(manager):
        if not letter.isprintable():
            found.append(at.invalid(manager, f"invalid character U+{ord(letter):04X} (at position {place})"))
            break
    return found


def manager_of_agent(agent: str) -> str:
    """The manager that a User-Agent names: what stands before its first slash."""
    found = "".join(letter for letter in agent.partition("/")[0] if letter.isprintable())
    return found.encode()[:MANAGER_LIMIT].decode(errors="ignore")
