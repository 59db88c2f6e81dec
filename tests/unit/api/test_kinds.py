"""The table of kinds, as text that is looked at when it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from polder.api.convert import convert, stored_form
from polder.api.kinds import BUILT_IN, BY_PATH, STORED_FORM, VERBS, Kind, built_in
from polder.api.schemas import schema_of

GOLDEN = Path(__file__).parents[2] / "golden" / "api" / "kinds.txt"


def line(kind: Kind) -> str:
    verbs = "*" if kind.verbs == VERBS else ",".join(kind.verbs)
    names, groups, subs = (",".join(part) or "-" for part in (kind.short, kind.categories, kind.subresources))
    scope = "namespaced" if kind.namespaced else "cluster"
    stored = kind.resource if kind.stored else "-"
    return (
        f"{kind.api_version} {kind.kind} {kind.plural} {kind.singular} {scope} {names} {groups} {subs} {verbs} {stored}"
    )


def test_the_table_is_as_it_was_looked_at() -> None:
    assert "".join(f"{line(kind)}\n" for kind in BUILT_IN) == GOLDEN.read_text()


def test_no_path_and_no_name_stands_for_two_kinds() -> None:
    assert len(BY_PATH) == len(BUILT_IN)
    assert len({(kind.api_version, kind.kind) for kind in BUILT_IN}) == len(BUILT_IN)
    assert built_in("apps/v1", "deployments").kind == "Deployment"


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: f"{kind.api_version}.{kind.plural}")
def test_every_kind_has_a_type_and_a_stored_form(kind: Kind) -> None:
    assert schema_of(kind) is not None
    if kind.stored:
        assert STORED_FORM[kind.resource].resource == kind.resource


@pytest.mark.parametrize(
    "kind", [kind for kind in BUILT_IN if stored_form(kind) is not kind], ids=lambda kind: kind.path
)
def test_a_form_converts_to_the_stored_one_and_back(kind: Kind) -> None:
    obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x"}}
    stored = convert(obj, stored_form(kind))
    assert stored["apiVersion"] == stored_form(kind).api_version != obj["apiVersion"]
    assert convert(stored, kind)["metadata"] == obj["metadata"]
