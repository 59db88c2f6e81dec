"""What the OpenAPI documents allow, as schemathesis reads them, is taken or refused, never a fault of the server.

A sample of the operations, a few requests of each, from fixed seeds. For a longer look raise ``OPERATIONS`` and
``EXAMPLES`` here for a while: a run over everything takes minutes.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.contract.conftest import Answer, Api, Running

OPERATIONS, EXAMPLES = 40, 4
KNOWN = {"namespace": ["default"], "name": ["default", "kube-root-ca.crt", "x"]}
"""Places that exist, or come to exist, without which nearly everything would be 404."""
SOUND = {
    "dryRun": ["All"],
    "fieldValidation": ["Strict", "Ignore"],
    "fieldManager": ["me"],
    "force": ["true"],
    "labelSelector": ["a=b"],
    "fieldSelector": ["metadata.name=x"],
    "limit": ["1"],
    "propagationPolicy": ["Orphan"],
}
PATCHES = ("merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml", "json-patch+json")


def requests_of(operation: Any, number: int) -> list[Any]:
    """What schemathesis makes of an operation."""
    found: list[Any] = []

    @seed(number)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(operation.as_strategy())
    def collect(case: Any) -> None:
        found.append(case)

    collect()
    return found


def sample(documents: list[Any], number: int) -> Iterator[Any]:
    """Requests of some operations of every document, more of the larger ones."""
    dice = random.Random(number)
    listed = [[one.ok() for one in document.get_all_operations()] for document in documents]
    every = sum(len(operations) for operations in listed)
    for operations in listed:
        for operation in dice.sample(operations, min(len(operations), max(1, len(operations) * OPERATIONS // every))):
            yield from requests_of(operation, number)


def named(case: Any, dice: random.Random) -> Any:
    """The body, mostly with the kind and a name, without which nothing else of it would be looked at."""
    body = case.body
    kind = case.operation.definition.raw.get("x-kubernetes-group-version-kind")
    if not isinstance(body, dict) or not kind or case.method == "DELETE" or dice.random() < 0.2:
        return None if isinstance(body, schemathesis.core.NotSet) else body
    meta = body.get("metadata")
    known = {"name": "x"} if dice.random() < 0.6 or not isinstance(meta, dict) else {**meta, "name": "x"}
    version = f"{kind['group']}/{kind['version']}".removeprefix("/")
    return {**body, "metadata": known, "apiVersion": version, "kind": kind["kind"]}


async def send(api: Api, case: Any, dice: random.Random) -> tuple[str, Answer]:
    path = case.operation.path
    for name, value in (case.path_parameters or {}).items():
        known = dice.choice(KNOWN.get(name, ["x"])) if dice.random() < 0.7 else str(value)
        path = path.replace(f"{{{name}}}", known if "%" in known else quote(known, safe=""))
    asked = {name: dice.choice(SOUND.get(name, [value])) for name, value in dict(case.query or {}).items()}
    if str(asked.get("watch")).lower() in ("true", "1") or "follow" in asked:
        asked["timeoutSeconds"] = "1"
    body = named(case, dice)
    sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    media = f"application/{dice.choice(PATCHES)}" if case.method == "PATCH" else "application/json"
    url = f"{path}?{urlencode(asked)}"
    async with asyncio.timeout(30):
        answer = await api.call(case.method.upper(), url, sent, Content_Type=media)
    return f"{case.method} {url} {media} {str(sent)[:2000]}", answer


def a_fault(answer: Answer) -> bool:
    """Whether the server failed. It may say that it is not there yet (a later revision), or that a node is not."""
    if answer.status < 500:
        return False
    return answer.status == 500 or answer.json["reason"] not in {"Timeout", "ServiceUnavailable"}


@pytest.mark.parametrize("who", ["platform", "tenant"])
async def test_no_request_that_the_documents_allow_is_a_fault(running: Running, who: str) -> None:
    root = running.admin()
    assert (await root.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "acme"}})).status == 201
    api = root if who == "platform" else (await running.tenant_admin("acme")).at("acme")
    index = (await api.get("/openapi/v3")).json["paths"]
    bodies = [
        json.loads((await root.get(row["serverRelativeURL"])).body) if who == "platform"
        else json.loads((await Api(running, api.session).get(row["serverRelativeURL"])).body)
        for row in index.values()
    ]  # fmt: skip
    number = len(who)
    documents = [schemathesis.openapi.from_dict(body) for body in bodies]
    cases = await asyncio.to_thread(lambda: list(sample(documents, number)))
    dice, statuses = random.Random(number), set()
    for case in cases:
        request, answer = await send(api, case, dice)
        assert not a_fault(answer), (request, answer.status, answer.body)
        statuses.add(answer.status)
    assert len(cases) > OPERATIONS and {200, 201, 400, 404, 422} <= statuses, (len(cases), statuses)
