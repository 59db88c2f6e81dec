"""Answers of the API server: every body is JSON, YAML or protobuf without a charset, every error a metav1.Status."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson
import yaml
from aiohttp import web

from polder.api.errors import ApiError
from polder.api.meta import Raw
from polder.apiserver.aside import LIMIT, Aside
from polder.apiserver.negotiate import JSON, PROTOBUF
from polder.apiserver.protobuf_encode import encode_body

PRETTY: Final = "pretty"
"""JSON with lines and indentation, for people."""
_AT_ONCE: Final = 4 * 1024
"""Bytes of JSON that are converted on the event loop: of YAML four milliseconds."""
_LATER: Final = web.ResponseKey("polder.later", str)
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
SOFTWARE: Final = "polder"
"""The Server header: no versions, which only help attackers."""


def json_answer(body: bytes, status: int = 200, *, media: str = JSON, warnings: Iterable[str] = ()) -> web.Response:
    """An answer whose body is JSON already; ``media`` converts it, a large one in ``finished``. Raises ApiError 406 for what
    protobuf does not know.
    """
    later = media != JSON and len(body) > _AT_ONCE
    if media != JSON and not later:
        body = _converted(body, media)
    response = web.Response(
        body=body, status=status, headers={"Content-Type": media, "Cache-Control": "no-cache, private"}
    )
    for warning in warnings:
        add_warning(response, warning)
    if later:
        response[_LATER] = media
    return response


def _converted(body: bytes, media: str) -> bytes:
    """JSON in another serialisation."""
    obj = orjson.loads(body)
    if media == PRETTY:
        return orjson.dumps(obj, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if media == PROTOBUF:
        return encode_body(obj)
    return b"".join(_yaml(obj))


def _yaml(obj: Any) -> Iterator[bytes]:
    """Item by item: the emitter lets nobody else run until it is through with what it was given."""
    items = obj.get("items") if isinstance(obj, dict) else None
    if not isinstance(items, list) or not items:
        yield _dumped(obj)
        return
    if before := {key: value for key, value in obj.items() if key < "items"}:
        yield _dumped(before)
    yield b"items:\n"
    for item in items:
        yield _dumped([item])
    if after := {key: value for key, value in obj.items() if key > "items"}:
        yield _dumped(after)


def _dumped(value: Any) -> bytes:
    return yaml.dump(value, Dumper=yaml.CSafeDumper, allow_unicode=True).encode()


async def finished(response: web.StreamResponse, request: web.BaseRequest, aside: Aside, tenant: str) -> None:
    """Gives an answer the form that the client wants, where that was left to do: beside the loop, for a list of megabytes
    takes YAML seconds. Raises ApiError 406.
    """
    if response.prepared or not isinstance(response, web.Response) or not isinstance(response.body, bytes):
        return
    body, media = response.body, response.get(_LATER, "")
    if not media and response.headers.get("Content-Type") == JSON and body and wants_pretty(request):
        media = PRETTY
    if media:

        async def convert() -> bytes:
            return _converted(body, media)

        size = len(body) if len(body) <= _AT_ONCE else max(len(body), LIMIT + 1)
        response.body = await aside.run(tenant, size, convert)


def wants_pretty(request: web.BaseRequest) -> bool:
    """Whether a person reads: who says so, and by default browsers and simple command-line tools, as upstream has it."""
    said = request.query.get("pretty")
    if said:
        return said in _TRUE
    return request.headers.get("User-Agent", "").startswith(("curl", "Wget", "Mozilla/5.0"))


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
