"""A tenant with many large definitions: what looks through all of them leaves others their turns."""

from __future__ import annotations

from typing import Any

import orjson

from polder.apiserver.custom import DEFINITIONS
from polder.store.protocol import Key, Put
from tests.contract.controlled import until
from tests.turns import counted_turns

COUNT = 100


def large(number: int) -> Put:
    names = {"plural": f"p{number}", "kind": f"K{number}"}
    obj = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"p{number}.x.dev", "uid": str(number), "generation": 1},
        "spec": {"group": "x.dev", "names": names, "scope": "Namespaced", "versions": [], "comment": "y" * 60_000},
        "status": {"acceptedNames": names, "conditions": [{"type": "NamesAccepted", "status": "True"}]},
    }  # fmt: skip
    return Put(Key(DEFINITIONS.resource, "acme", "", f"p{number}.x.dev"), orjson.dumps(obj))


async def test_looking_for_free_names_is_done_in_slices(running: Any, admin: Any) -> None:
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "acme"}})).status == 201
    await running.store.commit([large(number) for number in range(COUNT)])
    cleanup = running.api._cleanup

    async def seen() -> bool:
        return sum(key.tenant == "acme" for key in cleanup._seen or ()) == COUNT

    await until(seen)
    async with counted_turns() as turns:
        assert await cleanup._rename_one("acme") is None
        assert turns.taken >= COUNT * 60_000 / 65_536 / 2
