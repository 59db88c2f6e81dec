"""What a node shows of itself to the platform (``nodes/NAME/proxy/…``): pages by their path, served over the server's stream.

A kubelet has a port for that; here the answer goes through the stream: a line of JSON (``status``, ``type``), then the body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import orjson

from polder.api.meta import Object, Raw
from polder.client.carry import ByteStream

CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    body: bytes
    media: str = "text/plain; charset=utf-8"
    status: int = 200


Show = Callable[[Mapping[str, str]], Awaitable[Page]]
"""Makes a page, by the query. Raises ConnectionError where it cannot be made."""


class NodePages:
    """Serves the server's streams of the kind ``page``."""

    def __init__(self, pages: Mapping[str, Show]) -> None:
        self._pages = pages

    async def serve(self, header: Raw, stream: ByteStream) -> None:
        """One page; a path that there is none for is answered with 404."""
        path, query = str(header.get("path", "")), header.get("query")
        show = self._pages.get(path.strip("/"))
        if show is None:
            page = Page(b"404 page not found\n", status=404)
        elif header.get("method") not in {"GET", "HEAD"}:
            page = Page(b"405: Method Not Allowed", status=405)
        else:
            page = await show(query if isinstance(query, dict) else {})
        await stream.write(orjson.dumps({"status": page.status, "type": page.media}) + b"\n")
        if header.get("method") != "HEAD":
            for begin in range(0, len(page.body), CHUNK):
                await stream.write(page.body[begin : begin + CHUNK])


async def healthy(_: Mapping[str, str]) -> Page:
    """``healthz``: whoever answers is."""
    return Page(b"ok")


def listing(values: Callable[[], Sequence[Object]], kind: str) -> Show:
    """Objects as a list of the core group, version 1."""

    async def show(_: Mapping[str, str]) -> Page:
        items = b",".join(msgspec.json.encode(value) for value in values())
        head = orjson.dumps({"kind": f"{kind}List", "apiVersion": "v1", "metadata": {}})[:-1]
        return Page(head + b',"items":[' + items + b"]}", "application/json")

    return show
