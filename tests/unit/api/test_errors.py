from __future__ import annotations

import pytest

from polder.api import errors
from polder.api.errors import ApiError, Field
from polder.api.kinds import Kind
from tests.unit.api.kit import KINDS

PODS = KINDS["pods"]
DEPLOYMENTS = Kind("apps", "v1", "Deployment", "deployments", "deployment")


@pytest.mark.parametrize(
    ("error", "code", "reason", "message"),
    [
        (errors.not_found(PODS, "web"), 404, "NotFound", 'pods "web" not found'),
        (errors.not_found(DEPLOYMENTS, "web"), 404, "NotFound", 'deployments.apps "web" not found'),
        (errors.no_such_path(), 404, "NotFound", "the server could not find the requested resource"),
        (errors.already_exists(PODS, "web"), 409, "AlreadyExists", 'pods "web" already exists'),
        (
            errors.conflict(DEPLOYMENTS, "web"),
            409,
            "Conflict",
            'Operation cannot be fulfilled on deployments.apps "web": the object has been modified; please apply your '
            "changes to the latest version and try again",
        ),
        (errors.forbidden(PODS, "", "no"), 403, "Forbidden", "pods is forbidden: no"),
        (errors.forbidden(PODS, "web", "no"), 403, "Forbidden", 'pods "web" is forbidden: no'),
        (errors.unauthorized(), 401, "Unauthorized", "Unauthorized"),
        (errors.too_old(3, 9), 410, "Expired", "too old resource version: 3 (9)"),
        (errors.too_large("limit is 3145728"), 413, "RequestEntityTooLarge",
         "Request entity too large: limit is 3145728"),
        (errors.method_not_allowed(PODS, "patch"), 405, "MethodNotAllowed",
         'patch is not supported on resources of kind "pods"'),
        (errors.internal("boom"), 500, "InternalError", "Internal error occurred: boom"),
    ],
)  # fmt: skip
def test_errors_speak_as_upstream_does(error: ApiError, code: int, reason: str, message: str) -> None:
    assert (error.code, error.reason, error.message, str(error)) == (code, reason, message, message)


def test_a_status_has_the_form_that_clients_read() -> None:
    assert errors.not_found(DEPLOYMENTS, "web").to_status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'deployments.apps "web" not found',
        "reason": "NotFound",
        "details": {"name": "web", "group": "apps", "kind": "deployments"},
        "code": 404,
    }


def test_a_single_broken_field_reads_as_one_sentence_with_its_cause() -> None:
    at = (Field("spec") / "containers")[0] / "image"
    error = errors.invalid(PODS, "x", [at.required()])
    assert error.message == 'Pod "x" is invalid: spec.containers[0].image: Required value'
    assert error.code == 422
    assert error.details == {
        "name": "x",
        "kind": "Pod",
        "causes": [
            {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers[0].image"},
        ],
    }


def test_several_broken_fields_are_listed_and_repeated_sentences_are_said_once() -> None:
    field = Field("spec.replicas")
    found = errors.invalid(
        DEPLOYMENTS, "x", [field.invalid(-1, "must be at least 0"), field.required(), field.required()]
    )
    assert found.message == (
        'Deployment.apps "x" is invalid: [spec.replicas: Invalid value: -1: must be at least 0, '
        "spec.replicas: Required value]"
    )
    assert len(found.details["causes"]) == 3


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Field("a").invalid("x", "must be y"), 'a: Invalid value: "x": must be y'),
        (Field("a").invalid(True, "no"), "a: Invalid value: true: no"),
        (Field("a").invalid({"k": ["v"]}, "no"), 'a: Invalid value: {"k":["v"]}: no'),
        (Field("a").not_supported("x", ("B", "C")), 'a: Unsupported value: "x": supported values: "B", "C"'),
        (Field("a").duplicate("x"), 'a: Duplicate value: "x"'),
        (Field("a").not_found("x"), 'a: Not found: "x"'),
        (Field("a").forbidden("never"), "a: Forbidden: never"),
        (Field("a").too_long(253), "a: Too long: may not be more than 253 bytes"),
        (Field("a").too_many(5, 3), "a: Too many: 5: must have at most 3 items"),
        (Field("a").required("say it"), "a: Required value: say it"),
    ],
)
def test_field_errors_speak_as_upstream_does(error: errors.FieldError, sentence: str) -> None:
    assert str(error) == sentence


def test_an_error_survives_the_way_over_the_wire() -> None:
    sent = errors.conflict(PODS, "web")
    got = ApiError.from_status(sent.to_status())
    assert (got.code, got.reason, got.message, got.details) == (sent.code, sent.reason, sent.message, sent.details)
    assert got.is_conflict
    assert not got.is_already_exists


def test_an_answer_without_a_code_takes_that_of_http() -> None:
    assert ApiError.from_status({}, 503).code == 503
    assert "503" in ApiError.from_status({}, 503).message
