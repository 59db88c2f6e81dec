"""The agent's end of the CNI socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Protocol

from polder.base.errors import PolderError, RetryableError
from polder.cni.codec import encode_error, encode_result, encode_versions, parse_request
from polder.cni.types import VERSIONS, CniError, CniRequest, CniResult, Code, Command
from polder.cni.wire import MAX_REQUEST, WireError, pack_answer, unpack_request

log = logging.getLogger(__name__)


class CniHandler(Protocol):
    """What the commands mean. Each may raise CniError, or any PolderError, whose retry intent becomes the code."""

    async def add(self, request: CniRequest) -> CniResult:
        """Attach a sandbox; twice gives the same result."""
        ...

    async def delete(self, request: CniRequest) -> None:
        """Detach it; what is not there is gone already."""
        ...

    async def check(self, request: CniRequest) -> None:
        """Raise where the attachment is not as ADD left it."""
        ...

    async def collect(self, request: CniRequest) -> None:
        """GC: detach everything but ``request.valid``."""
        ...

    async def status(self) -> None:
        """Raise where ADD could not work at the moment."""
        ...


class CniServer:
    """Answers stubs on a unix socket that only root may use."""

    def __init__(self, path: Path, handler: CniHandler) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. A socket that an earlier agent left is replaced in one step."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, fresh, limit=MAX_REQUEST, backlog=256)
        fresh.chmod(0o600)
        fresh.replace(self._path)

    async def close(self) -> None:
        """Stop listening; calls under way end by themselves."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            data = await _read(reader)
            code, output = await self.answer(data)
            writer.write(pack_answer(code, output))
            await writer.drain()
        except (ConnectionError, OSError) as error:
            log.info("a CNI caller left: %s", error)
        except asyncio.CancelledError:
            log.info("a CNI call was cut off by the agent's end; its caller sees the connection break and tries again")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, OSError):
                await writer.wait_closed()

    async def answer(self, data: bytes) -> tuple[int, bytes]:
        """One call: exit code and output."""
        version = VERSIONS[-1]
        try:
            request = parse_request(*unpack_request(data))
            version = request.version
            return 0, await self._dispatch(request)
        except CniError as error:
            return 1, encode_error(error, version)
        except WireError as error:
            return 1, encode_error(CniError(Code.IO_FAILURE, "malformed call", str(error)), version)
        except RetryableError as error:
            return 1, encode_error(CniError(Code.TRY_AGAIN_LATER, "try again later", str(error)), version)
        except PolderError as error:
            return 1, encode_error(CniError(Code.REFUSED, "refused", str(error)), version)
        except Exception as error:
            log.exception("a CNI call failed")
            return 1, encode_error(CniError(Code.TRY_AGAIN_LATER, "try again later", repr(error)), version)

    async def _dispatch(self, request: CniRequest) -> bytes:
        match request.command:
            case Command.ADD:
                return encode_result(await self._handler.add(request), request.version)
            case Command.DEL:
                await self._handler.delete(request)
            case Command.CHECK:
                await self._handler.check(request)
            case Command.GC:
                await self._handler.collect(request)
            case Command.STATUS:
                await self._handler.status()
            case Command.VERSION:
                return encode_versions(request.version)
        return b""


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Everything up to the end, or one byte more than is taken."""
    data = bytearray()
    while len(data) <= MAX_REQUEST and (piece := await reader.read(65536)):
        data += piece
    return bytes(data)
