"""Kubernetes' library of authorization: ``authorizer.group('').resource('pods').check('get').allowed()``.

An evaluation cannot wait. A question without an answer ends it with ``UnansweredError``; whoever runs the program asks, adds
the answer and runs it again. The cost of a question allows two of them in an expression.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from polder.api import names
from polder.api.cel.errors import Fault
from polder.api.cel.functions import Library, member
from polder.api.cel.types import BOOL, STRING, opaque
from polder.api.cel.values import Value
from polder.base.errors import PermanentError

AUTHORIZER: Final = opaque("kubernetes.authorization.Authorizer")
PATH_CHECK: Final = opaque("kubernetes.authorization.PathCheck")
GROUP_CHECK: Final = opaque("kubernetes.authorization.GroupCheck")
RESOURCE_CHECK: Final = opaque("kubernetes.authorization.ResourceCheck")
DECISION: Final = opaque("kubernetes.authorization.Decision")


@dataclass(frozen=True, slots=True)
class Question:
    """Whether the user of the request, or a service account (namespace, name), may do something."""

    service_account: tuple[str, str] | None = None
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    verb: str = ""
    field_selector: str = ""
    label_selector: str = ""


@dataclass(frozen=True, slots=True)
class Answer(Value):
    """What the authorizer said."""

    allowed: bool
    reason: str = ""
    error: str = ""
    type_name = "kubernetes.authorization.Decision"


class UnansweredError(PermanentError):
    """The program asks something that is yet to be answered: answer it and run the program again."""

    def __init__(self, question: Question) -> None:
        super().__init__("the expression asks the authorizer")
        self.question = question


@dataclass(frozen=True, slots=True)
class Check(Value):
    """A question that is being put together; ``answers`` are those that are known."""

    type_name: str
    question: Question = Question()
    answers: Mapping[Question, Answer] = field(default_factory=dict, compare=False, hash=False)


def authorizer_value(answers: Mapping[Question, Answer]) -> Check:
    """The variable ``authorizer``."""
    return Check(AUTHORIZER.name, Question(), answers)


def resource_check(check: Check, question: Question) -> Check:
    """The variable ``authorizer.requestResource``."""
    return Check(RESOURCE_CHECK.name, question, check.answers)


def _path(check: Check, path: str) -> Check:
    if not path:
        raise Fault("path must not be empty")
    return replace(check, type_name=PATH_CHECK.name, question=replace(check.question, path=path))


def _group(check: Check, group: str) -> Check:
    return replace(check, type_name=GROUP_CHECK.name, question=replace(check.question, group=group))


def _service_account(check: Check, namespace: str, name: str) -> Check:
    if names.dns_subdomain(name):
        raise Fault("Invalid service account name")
    if names.dns_label(namespace):
        raise Fault("Invalid service account namespace")
    return replace(check, question=replace(check.question, service_account=(namespace, name)))


def _resource(check: Check, resource: str) -> Check:
    if not resource:
        raise Fault("resource must not be empty")
    return replace(check, type_name=RESOURCE_CHECK.name, question=replace(check.question, resource=resource))


def _set(name: str) -> Callable[[Check, str], Check]:
    def run(check: Check, value: str) -> Check:
        given: dict[str, Any] = {name: value}
        return replace(check, question=replace(check.question, **given))

    return run


def _check(check: Check, verb: str) -> Answer:
    question = replace(check.question, verb=verb)
    if question not in check.answers:
        raise UnansweredError(question)
    return check.answers[question]


def _more(name: str, text: str) -> Library:
    return {text: (member(f"resourcecheck_{text.lower()}", (RESOURCE_CHECK, STRING), RESOURCE_CHECK, _set(name)),)}


LIBRARY: Final[Library] = {
    "path": (member("authorizer_path", (AUTHORIZER, STRING), PATH_CHECK, _path),),
    "group": (member("authorizer_group", (AUTHORIZER, STRING), GROUP_CHECK, _group),),
    "serviceAccount": (
        member("authorizer_serviceaccount", (AUTHORIZER, STRING, STRING), AUTHORIZER, _service_account),
    ),
    "resource": (member("groupcheck_resource", (GROUP_CHECK, STRING), RESOURCE_CHECK, _resource),),
    **_more("subresource", "subresource"),
    **_more("namespace", "namespace"),
    **_more("name", "name"),
    **_more("field_selector", "fieldSelector"),
    **_more("label_selector", "labelSelector"),
    "check": (
        member("pathcheck_check", (PATH_CHECK, STRING), DECISION, _check),
        member("resourcecheck_check", (RESOURCE_CHECK, STRING), DECISION, _check),
    ),
    "allowed": (member("decision_allowed", (DECISION,), BOOL, lambda answer: answer.allowed),),
    "reason": (member("decision_reason", (DECISION,), STRING, lambda answer: answer.reason),),
    "errored": (member("decision_errored", (DECISION,), BOOL, lambda answer: bool(answer.error)),),
    "error": (member("decision_error", (DECISION,), STRING, lambda answer: answer.error),),
}
