"""The order of what managedFields hold: clients that compare objects compare its text."""

from __future__ import annotations

import json
from typing import Any

from polder.api.fieldsets import of_paths, union
from polder.api.ownership import Managed, Manager, write


def written(fields: Any, before: Any) -> str:
    managed = Managed()
    managed.put(Manager.updater("m", "v1"), fields, "v1")
    (entry,) = write(managed, before)
    return json.dumps(entry["fieldsV1"])


def test_elements_are_written_in_order() -> None:
    fields = union(
        of_paths(("f:spec", "f:b"), ("f:spec", 'k:{"name":"z"}')), of_paths(("f:metadata",), ("f:spec", "f:a"))
    )
    text = written(fields, {})
    assert text == json.dumps(json.loads(text), sort_keys=True)
    assert text.index("f:metadata") < text.index("f:a") < text.index("f:b") < text.index("k:")
