"""Custom kinds through kubectl: wait, columns, short names, categories, explain, scale, apply, and what is refused.

Transcribes the behaviours that upstream's test/e2e/apimachinery/crd_publish_openapi.go and kubectl's tests check.
"""

from __future__ import annotations

import json
from typing import Any

from tests.contract.customkit import GROUP, crd, fields, version, widget

SPEC = fields(
    replicas={"type": "integer", "minimum": 0, "default": 1, "description": "How many."},
    color={"type": "string", "enum": ["red", "blue"]},
)
COLUMNS = [
    {"name": "Wanted", "type": "integer", "jsonPath": ".spec.replicas"},
    {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1},
]


def definition() -> Any:
    one = version(
        spec=SPEC,
        additionalPrinterColumns=COLUMNS,
        subresources={"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                                              "statusReplicasPath": ".status.replicas",
                                              "labelSelectorPath": ".status.selector"}},
    )  # fmt: skip
    return crd(one, names={"shortNames": ["wd"], "categories": ["all", "things"]})


async def test_a_kind_of_ones_own(kubectl: Any) -> None:
    await kubectl.apply(definition())
    await kubectl("wait", "--for=condition=Established", f"crd/widgets.{GROUP}", "--timeout=10s")
    await kubectl.apply(widget("one", {"color": "red"}))
    lines = (await kubectl("get", "wd")).splitlines()
    assert [line.split() for line in lines] == [["NAME", "WANTED"], ["one", "1"]]
    assert "COLOR" in await kubectl("get", "widgets", "-o", "wide")
    assert "widget.tests.example.com/one" in await kubectl("get", "things", "-o", "name")
    explained = await kubectl("explain", "widgets.spec.replicas")
    assert "How many." in explained and "integer" in explained.lower()
    await kubectl("scale", "widget/one", "--replicas=3")
    assert (await kubectl.json("get", "widget", "one"))["spec"]["replicas"] == 3
    refused = await kubectl.refused("apply", "-f", "-", stdin=json.dumps(widget("two", {"color": "green"})))
    assert 'spec.color: Unsupported value: "green": supported values: "red", "blue"' in refused
    unknown = await kubectl.refused("create", "-f", "-", stdin=json.dumps(widget("two", {"colour": "red"})))
    assert "unknown field" in unknown and "colour" in unknown
    negative = await kubectl.refused("patch", "widget", "one", "--type=merge", "-p", '{"spec":{"replicas":-1}}')
    assert "should be greater than or equal to 0" in negative
    await kubectl("delete", "crd", f"widgets.{GROUP}")
    gone = await kubectl.refused("get", "widgets")
    assert "doesn't have a resource type" in gone or "could not find the requested resource" in gone
