"""Answers of the API server: every body is JSON, YAML or protobuf without a charset, every error a metav1.Status."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson
import yaml
from aiohttp import web

from polder.api.errors import ApiError
from polder.api.meta import Raw
from polder.apiserver.negotiate import JSON, PROTOBUF, YAML
from polder.apiserver.protobuf_encode import encode_body

SOFTWARE: Final = "polder"
"""The Server header: no versions, which only help attackers."""


def json_answer(body: bytes, status: int = 200, *, media: str = JSON, warnings: Iterable[str] = ()) -> web.Response:
    """An answer whose body is JSON already; ``media`` converts it. Raises ApiError 406 for what protobuf does not know."""
    if media == YAML:
        body = yaml.dump(orjson.loads(body), Dumper=yaml.CSafeDumper, allow_unicode=True).encode()
    elif media == PROTOBUF:
        body = encode_body(orjson.loads(body))
    response = web.Response(
        body=body, status=status, headers={"Content-Type": media, "Cache-Control": "no-cache, private"}
    )
    for warning in warnings:
        add_warning(response, warning)
    return response


def add_warning(response: web.StreamResponse, warning: str) -> None:
    """What clients show to their users beside the answer."""
    response.headers.add("Warning", f"299 - {_quoted(warning)}")


def _quoted(text: str) -> str:
    """An RFC 9110 quoted-string; control characters and what is not Latin become spaces and question marks."""
    plain = "".join(c if " " <= c <= "~" else " " if c < " " else "?" for c in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def raw_answer(value: Any, status: int = 200) -> web.Response:
    """An answer from a JSON value."""
    return json_answer(orjson.dumps(value), status)


def text_answer(text: str, status: int = 200) -> web.Response:
    """Plain text, as health checks and metrics are."""
    return web.Response(body=text.encode(), status=status, headers={"Content-Type": "text/plain; charset=utf-8"})


def error_answer(error: ApiError) -> web.Response:
    """The Status of an error, with Retry-After and WWW-Authenticate where they belong."""
    response = raw_answer(error.to_status(), error.code)
    retry = error.details.get("retryAfterSeconds")
    if retry:
        response.headers["Retry-After"] = str(retry)
    if error.code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def success(details: Raw | None = None) -> Raw:
    """A Status of success."""
    found: Raw = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details:
        found["details"] = details
    return found
