"""Kubernetes' library of URLs, as Go's net/url reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from polder.api.cel.errors import Fault
from polder.api.cel.functions import Library, function, member
from polder.api.cel.types import BOOL, STRING, list_of, map_of, opaque
from polder.api.cel.values import Value

URL_TYPE: Final = opaque("kubernetes.URL")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(.*)", re.DOTALL)
_ESCAPES: Final = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)
_PATH_SAFE: Final = "!$&'()*+,;=:@/-._~"


@dataclass(frozen=True, slots=True)
class Url(Value):
    """A parsed URL."""

    scheme: str
    host: str
    path: str
    query: str
    text: str
    type_name = "kubernetes.URL"

    @property
    def parts(self) -> tuple[str, str]:
        """Host name and port."""
        host, port = self.host, ""
        end = host.rfind("]") if host.startswith("[") else -1
        colon = host.find(":", end + 1) if end >= 0 else host.rfind(":")
        if colon >= 0:
            host, port = host[:colon], host[colon + 1 :]
        return host.removeprefix("[").removesuffix("]"), port


def _escaped_path(path: str) -> str:
    """The path as it was given where that is a valid escape of it, else escaped anew."""
    raw = unquote_to_bytes(path)
    if re.fullmatch(r"(?:[A-Za-z0-9!$&'()*+,;=:@/\-._~\[\]]|%[0-9A-Fa-f]{2})*", path):
        return path
    return "*" if raw == b"*" else quote(raw, safe=_PATH_SAFE)


def problem_of(text: str) -> str:
    """Why a text is no absolute URL or absolute path; empty if it is one."""
    if any(char < " " or char == "\x7f" for char in text):
        return "net/url: invalid control character in URL"
    if not text:
        return "empty url"
    match = _SCHEME.fullmatch(text)
    if match is None and text.startswith(":"):
        return "missing protocol scheme"
    if match is None and re.match(r"[A-Za-z][^/?#]*:", text) and not text.startswith("/"):
        return "first path segment in URL cannot contain colon"
    rest = match[2] if match is not None else text
    if not rest.startswith("/") and (match is None or not rest):
        return "invalid URI for request"
    if match is not None and not rest.startswith("/"):
        return ""  # opaque: mailto:a@b
    bad = _ESCAPES.search(rest.partition("?")[0])
    if bad is not None:
        return f'invalid URL escape "{bad.group()}"'
    host = _authority(rest)[0]
    return _host_problem(host)


def _host_problem(host: str) -> str:
    if " " in host:
        return 'invalid character " " in host name'
    tail = host[host.rfind("]") + 1 :] if host.startswith("[") else host[host.rfind(":") :] if ":" in host else ""
    if host.startswith("[") and "]" not in host:
        return "missing ']' in host"
    if tail and not re.fullmatch(r":[0-9]*", tail):
        return f'invalid port "{tail}" after host'
    bad = next((c for c in host if c.isascii() and not c.isalnum() and c not in "-._~!$&'()*+,;=:[]<>\"%"), "")
    return f'invalid character "{bad}" in host name' if bad else ""


def _authority(rest: str) -> tuple[str, str]:
    """Host and path of what follows the scheme."""
    rest = rest.partition("?")[0]
    if not rest.startswith("//") or rest.startswith("///"):
        return "", rest.removeprefix("//") if rest.startswith("///") else rest
    authority, slash, path = rest[2:].partition("/")
    return authority.rpartition("@")[2], slash + path


def parse(text: str) -> Url:
    """The URL. Raises Fault."""
    problem = problem_of(text)
    if problem:
        raise Fault(f'URL parse error during conversion from string: parse "{text}": {problem}')
    plain = text.partition("#")[0]
    match = _SCHEME.fullmatch(plain)
    rest = match[2] if match is not None else plain
    host, path = _authority(rest) if rest.startswith("/") else ("", "")
    return Url(match[1].lower() if match is not None else "", host, path, rest.partition("?")[2], text)


def _query(url: Url) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in url.query.split("&"):
        if not pair or ";" in pair:
            continue
        key, _, value = pair.partition("=")
        if _ESCAPES.search(pair):
            continue
        key, value = (unquote_to_bytes(part.replace("+", " ")).decode(errors="replace") for part in (key, value))
        found.setdefault(key, []).append(value)
    return found


LIBRARY: Final[Library] = {
    "url": (function("string_to_url", (STRING,), URL_TYPE, parse),),
    "isURL": (function("is_url_string", (STRING,), BOOL, lambda text: not problem_of(text)),),
    "getScheme": (member("url_get_scheme", (URL_TYPE,), STRING, lambda url: url.scheme),),
    "getHost": (member("url_get_host", (URL_TYPE,), STRING, lambda url: url.host),),
    "getHostname": (member("url_get_hostname", (URL_TYPE,), STRING, lambda url: url.parts[0]),),
    "getPort": (member("url_get_port", (URL_TYPE,), STRING, lambda url: url.parts[1]),),
    "getEscapedPath": (member("url_get_escaped_path", (URL_TYPE,), STRING, lambda url: _escaped_path(url.path)),),
    "getQuery": (member("url_get_query", (URL_TYPE,), map_of(STRING, list_of(STRING)), _query),),
}
