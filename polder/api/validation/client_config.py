"""References to what the server calls (``clientConfig``): a URL or a service, and the authority that it is checked by."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

_FORM: Final = "; desired format: https://host[/path]"
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----\s([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


def check_client_config(config: Raw, at: Field, *, any_bundle: bool = False) -> Iterator[FieldError]:
    """What is wrong with a reference. ``any_bundle`` leaves ``caBundle`` unread."""
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        yield at.required("exactly one of url or service is required")
    elif url is not None:
        yield from _url(url, at / "url")
    else:
        yield from _service(service or {}, at / "service")
    if config.get("caBundle") and not any_bundle and not _is_bundle(config["caBundle"]):
        why = "unable to load root certificates: unable to parse bytes as PEM block"
        yield (at / "caBundle").invalid(config["caBundle"], why)


def _is_bundle(text: Any) -> bool:
    try:
        found = base64.b64decode(text, validate=True)
        blocks = _PEM.findall(found)
        for block in blocks:
            base64.b64decode(b"".join(block.split()), validate=True)
    except (binascii.Error, ValueError, TypeError):
        return False
    return bool(blocks) or not found.strip()


def _url(url: str, at: Field) -> Iterator[FieldError]:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        yield at.required(f"url must be a valid URL: {error}{_FORM}")
        return
    if parts.scheme != "https":
        yield at.invalid(parts.scheme, f"'https' is the only allowed URL scheme{_FORM}")
    if not host:
        yield at.invalid("", f"host must be specified{_FORM}")
    if parts.username is not None:
        yield at.invalid(parts.username, "user information is not permitted in the URL")
    if parts.fragment:
        yield at.invalid(parts.fragment, "fragments are not permitted in the URL")
    if parts.query:
        yield at.invalid(parts.query, "query parameters are not permitted in the URL")


def _service(service: Raw, at: Field) -> Iterator[FieldError]:
    for key in ("name", "namespace"):
        if not service.get(key):
            yield (at / key).required()
    port = service.get("port", 443)
    said = names.port_number(port)
    if said:
        yield (at / "port").invalid(port, f"port is not valid: {', '.join(said)}")
    path = service.get("path") or "/"
    if path == "/":
        return
    if not path.startswith("/"):
        yield (at / "path").invalid(path, "must start with a '/'")
    for number, step in enumerate(path[1:].removesuffix("/").split("/")):
        if not step:
            yield (at / "path").invalid(path, f"segment[{number}] may not be empty")
        else:
            yield from ((at / "path").invalid(path, f"segment[{number}]: {w}") for w in names.dns_subdomain(step))
