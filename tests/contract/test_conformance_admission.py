"""What upstream's specs of admission check and is held nowhere else, in root and in a tenant."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import Api

PODS = "/api/v1/namespaces/default/pods"
GROUP = "/apis/admissionregistration.k8s.io/v1"


async def create(api: Api, path: str, obj: Any) -> None:
    made = await api.post(path, obj)
    assert made.status == 201, made.body


async def guard(api: Api, rule: str, *resources: str) -> None:
    """A policy about connections."""
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": list(resources)}]
    spec = {"matchConstraints": {"resourceRules": rules},
            "validations": [{"expression": rule, "message": "getting into pods is not allowed"}]}  # fmt: skip
    await create(api, f"{GROUP}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": spec})
    binding = {"metadata": {"name": "p"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}}
    await create(api, f"{GROUP}/validatingadmissionpolicybindings", binding)


async def test_a_connection_is_admitted_before_anything_else(either: Api) -> None:
    """The options of the connection are the object that is looked at, of the kind that the subresource has."""
    await guard(
        either, "has(object.container) && object.container == 'open' && !object.tty", "pods/attach", "pods/exec"
    )
    await create(either, PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "open", "image": "i:1"}]}})
    for refused in ("attach?container=other", "attach", "exec?container=open&command=sh&tty=true"):
        answer = await either.post(f"{PODS}/p/{refused}", None)
        assert answer.status == 422, answer.body
        assert "getting into pods is not allowed" in answer.json["message"]
    passed = [await either.post(f"{PODS}/p/{let}", None) for let in ("attach?container=open&stdin=1", "portforward")]
    assert [answer.status for answer in passed] == [400, 400], "admitted, and then the pod has no node"


@pytest.mark.parametrize("plural", ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"])
async def test_a_webhooks_path_may_be_empty(either: Api, plural: str) -> None:
    """An empty path is no path; any other begins with a slash."""
    service = {"namespace": "default", "name": "s", "path": ""}
    hook = {"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": service}}  # fmt: skip
    await create(either, f"{GROUP}/{plural}", {"metadata": {"name": "x"}, "webhooks": [hook]})
    service["path"] = "somewhere"
    refused = await either.post(f"{GROUP}/{plural}", {"metadata": {"name": "y"}, "webhooks": [hook]})
    assert refused.status == 422 and "must start with a '/'" in refused.json["message"]
