"""Links of proxied pages, led back through the proxy: in HTML as it streams by, and in redirects.

Only attributes that hold URLs are touched, and of these only absolute paths and URLs of the same host; everything else passes
byte for byte. The work is one pass over what comes; what is kept between two parts is bounded. Source: upstream's
apimachinery/pkg/util/proxy/transport.go.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_ATTRIBUTES: Final = {
    "a": {"href"}, "applet": {"codebase"}, "area": {"href"}, "audio": {"src"}, "base": {"href"}, "blockquote": {"cite"},
    "body": {"background"}, "button": {"formaction"}, "command": {"icon"}, "del": {"cite"}, "embed": {"src"},
    "form": {"action"}, "frame": {"longdesc", "src"}, "head": {"profile"}, "html": {"manifest"},
    "iframe": {"longdesc", "src"}, "img": {"longdesc", "src", "usemap"}, "input": {"src", "usemap", "formaction"},
    "ins": {"cite"}, "link": {"href"}, "object": {"classid", "codebase", "data", "usemap"}, "q": {"cite"},
    "script": {"src"}, "source": {"src"}, "video": {"poster", "src"},
}  # fmt: skip
_RAW: Final = frozenset({"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"})
"""Elements whose content is text whatever stands in it (HTML, 13.2.5)."""
TAG_LIMIT: Final = 16 * 1024
"""Bytes of one tag, and of what waits for its end; a longer one passes as it is."""
_START: Final = re.compile(rb"<(?:(!--)|([A-Za-z][^\s/>]{0,63}))")
_ATTRIBUTE: Final = re.compile(
    rb"""[\s/]*([^\s/>=][^\s/>=]*)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>][^\s>]*)|(?=>)))?""", re.DOTALL
)
_SPACE: Final = re.compile(rb"[\s/]*")


@dataclass(frozen=True, slots=True)
class Links:
    """Where a page stands. ``prefix`` is the proxy's own path, ``source`` the host and port that it asked, ``asked`` the
    host that the client named.
    """

    prefix: str
    source: str
    asked: str

    def rewrite(self, url: str) -> str:
        """A URL as it leads through the proxy."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return url
        if parts.netloc not in {"", self.source, self.asked} or not parts.path.startswith("/"):
            return url
        scheme, host = (parts.scheme, parts.netloc) if parts.netloc == self.asked else ("", "")
        path = parts.path
        if not path.startswith(self.prefix):
            path = posixpath.normpath(f"{self.prefix}/{path}") + ("/" if path.endswith("/") else "")
        return urlunsplit((scheme, host, path, parts.query, parts.fragment))


class HtmlRewriter:
    """Rewrites a page as it comes."""

    def __init__(self, rewrite: Callable[[str], str]) -> None:
        self._rewrite = rewrite
        self._waiting = b""
        self._until = b""

    def feed(self, data: bytes) -> bytes:
        """What can go on."""
        text = self._waiting + data
        out: list[bytes] = []
        position = 0
        while position < len(text):
            end = self._skip(text, position, out) if self._until else self._tag(text, position, out)
            if end is None:
                break
            position = end
        self._waiting = text[position:]
        if len(self._waiting) > TAG_LIMIT:
            out.append(self._waiting)
            self._waiting = b""
        return b"".join(out)

    def flush(self) -> bytes:
        """What is left at the end."""
        rest, self._waiting = self._waiting, b""
        return rest

    def _skip(self, text: bytes, position: int, out: list[bytes]) -> int | None:
        """Text that holds no tags, up to what ends it; None where more is needed."""
        ending = re.compile(re.escape(self._until), re.IGNORECASE).search(text, position)
        if ending is None:
            keep = max(position, len(text) - len(self._until) + 1)
            out.append(text[position:keep])
            return keep if keep > position else None
        out.append(text[position : ending.start()])
        self._until = b""
        return ending.start()

    def _tag(self, text: bytes, position: int, out: list[bytes]) -> int | None:
        """Text up to the next tag, and this; None where more is needed."""
        begin = text.find(b"<", position)
        if begin < 0:
            out.append(text[position:])
            return len(text)
        out.append(text[position:begin])
        if len(text) - begin < 4:
            return _waiting(begin, position)
        start = _START.match(text, begin)
        if start is None:
            out.append(b"<")
            return begin + 1
        if start.group(1):
            self._until = b"-->"
            out.append(start.group())
            return start.end()
        whole = self._attributes(text, start, out)
        return _waiting(begin, position) if whole is None else whole

    def _attributes(self, text: bytes, start: re.Match[bytes], out: list[bytes]) -> int | None:
        name = start.group(2).decode("latin-1").lower()
        wanted = _ATTRIBUTES.get(name, set())
        parts, done = [], start.start()
        position = start.end()
        while True:
            position = _end(_SPACE.match(text, position), position)
            if position >= len(text):
                return None
            if text[position] == ord(">"):
                break
            found = _ATTRIBUTE.match(text, position)
            if found is None:
                position += 1  # a quote or sign that belongs to nothing
                continue
            if found.end() >= len(text):
                return None
            position = found.end()
            group = found.lastindex or 1
            if group > 1 and found.group(1).decode("latin-1").lower() in wanted:
                value = found.group(group)
                changed = self._changed(value)
                if changed is not None:
                    parts += [text[done : found.start(group)], changed]
                    done = found.end(group)
        parts.append(text[done : position + 1])
        out.extend(parts)
        if name in _RAW and text[position - 1] != ord("/"):
            self._until = b"</" + name.encode()
        return position + 1

    def _changed(self, value: bytes) -> bytes | None:
        """An attribute's new value; None where it stays."""
        try:
            before = html.unescape(value.decode())
        except UnicodeDecodeError:
            return None
        after = self._rewrite(before)
        return None if after == before else html.escape(after).encode()


def _waiting(begin: int, position: int) -> int | None:
    """What begins a tag is kept for the next part; None where nothing comes before it."""
    return begin if begin > position else None


def _end(match: re.Match[bytes] | None, otherwise: int) -> int:
    return match.end() if match is not None else otherwise
