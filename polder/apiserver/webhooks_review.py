"""AdmissionReview: what a webhook is asked and what it may answer (admission.k8s.io/v1, and v1beta1 for old ones).

Source: k8s.io/api/admission/v1 and apiserver's admission/plugin/webhook/request.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from polder.api.errors import ApiError
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.types import user_info

GROUP: Final = "admission.k8s.io"
VERSIONS: Final = ("v1", "v1beta1")
WARNING_LIMIT: Final = 256
"""Characters of a warning; further ones are cut off."""
WARNINGS: Final = 64
"""Warnings, and annotations, of one answer; further ones are left out."""
ANNOTATION_LIMIT: Final = 4096


class ReviewError(Exception):
    """An answer that is no good AdmissionReview; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Review:
    """A question: its body, and what an answer must repeat."""

    version: str
    uid: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer. ``patch`` is a JSON patch's operations, None for no change."""

    allowed: bool
    result: Raw = field(default_factory=dict)
    patch: Any = None
    warnings: tuple[str, ...] = ()
    audit: dict[str, str] = field(default_factory=dict)


def _gvk(kind: Kind) -> Raw:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _gvr(kind: Kind) -> Raw:
    return {"group": kind.group, "version": kind.version, "resource": kind.plural}


def request_of(context: AdmissionContext, kind: Kind, obj: Raw | None, old: Raw | None) -> Raw:
    """An AdmissionRequest without its uid; ``obj`` and ``old`` are in the form of ``kind``."""
    own, subject = context.resource.kind, context.subject
    found: Raw = {
        "kind": _gvk(subject.kind if subject is not None else kind),
        "resource": _gvr(kind),
        "requestKind": _gvk(subject.kind if subject is not None else own),
        "requestResource": _gvr(own),
        "operation": context.operation,
        "userInfo": user_info(context.who),
        "object": obj,
        "oldObject": old,
        "dryRun": context.dry_run,
        "options": context.options or None,
    }
    name = context.name if not generated(context) else ""
    place = {"name": name, "namespace": _namespace(context), "subResource": context.subresource}
    if context.subresource:
        place["requestSubResource"] = context.subresource
    found.update({key: value for key, value in place.items() if value})
    return found


def generated(context: AdmissionContext) -> bool:
    """Whether the object's name was asked for by prefix: admission then sees none in the request."""
    meta = (context.obj or {}).get("metadata") or {}
    return context.verb == "create" and bool(meta.get("generateName")) and context.subject is None


def _namespace(context: AdmissionContext) -> str:
    return context.name if context.resource.kind.resource == "namespaces" else context.namespace


def ask(request: Raw, versions: Iterable[str]) -> Review:
    """The question in the first version that is known on both sides. Raises ReviewError."""
    version = next((v for v in versions if v in VERSIONS), None)
    if version is None:
        raise ReviewError("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
    uid = str(uuid.uuid4())
    review = {
        "kind": "AdmissionReview",
        "apiVersion": f"{GROUP}/{version}",
        "request": {"uid": uid, **request},
    }
    return Review(version, uid, orjson.dumps(review))


def verify(review: Review, answer: bytes, *, mutating: bool) -> Verdict:
    """What an answer says. Raises ReviewError in upstream's words."""
    try:
        said = orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise ReviewError(f"the answer is no JSON: {error}") from error
    response = said.get("response") if isinstance(said, dict) else None
    if not isinstance(response, dict):
        raise ReviewError("webhook response was absent")
    strict = review.version == "v1"
    if strict:
        if response.get("uid") != review.uid:
            raise ReviewError(f'expected response.uid="{review.uid}", got "{response.get("uid") or ""}"')
        wanted, got = f"{GROUP}/v1, Kind=AdmissionReview", f"{said.get('apiVersion')}, Kind={said.get('kind')}"
        if wanted != got:
            raise ReviewError(f"expected webhook response of {wanted}, got {got}")
    _check_patch(response, mutating=mutating, strict=strict)
    result = response.get("status") or {}
    return Verdict(
        response.get("allowed") is True,
        result if isinstance(result, dict) else {},
        _patch_of(response) if mutating and response.get("patch") else None,
        _warnings(response.get("warnings")),
        _annotations(response.get("auditAnnotations")),
    )


def _warnings(said: Any) -> tuple[str, ...]:
    return tuple(str(text)[:WARNING_LIMIT] for text in said[:WARNINGS]) if isinstance(said, list) else ()


def _annotations(said: Any) -> dict[str, str]:
    rows = list(said.items())[:WARNINGS] if isinstance(said, dict) else []
    return {str(key)[:WARNING_LIMIT]: str(value)[:ANNOTATION_LIMIT] for key, value in rows}


def _check_patch(response: Raw, *, mutating: bool, strict: bool) -> None:
    patch, kind = response.get("patch"), response.get("patchType")
    if not strict:
        return
    if not mutating and (patch or kind is not None):
        raise ReviewError(f"validating webhook may not return response.{'patch' if patch else 'patchType'}")
    if mutating and patch and kind is None:
        raise ReviewError("webhook returned response.patch but not response.patchType")
    if mutating and not patch and kind is not None:
        raise ReviewError("webhook returned response.patchType but not response.patch")
    if mutating and kind == "":
        raise ReviewError('webhook returned invalid response.patchType of ""')
    if mutating and kind not in {None, "JSONPatch"}:
        raise ReviewError(f'unsupported patch type "{kind}"')


def _patch_of(response: Raw) -> Any:
    try:
        return orjson.loads(base64.b64decode(str(response["patch"]), validate=True))
    except (binascii.Error, ValueError) as error:
        raise ReviewError(f"received undecodable patch in webhook response: {error}") from error


def refusal(webhook: str, result: Raw) -> ApiError:
    """What the caller is told of a webhook's denial."""
    denied = f'admission webhook "{webhook}" denied the request'
    code, reason = result.get("code"), str(result.get("reason") or "")
    said = str(result.get("message") or "")
    message = f"{denied}: {said or reason}" if said or reason else f"{denied} without explanation"
    details = result.get("details")
    return ApiError(
        code if isinstance(code, int) and 400 <= code < 600 else 400,
        reason,
        message,
        details if isinstance(details, dict) else None,
    )
