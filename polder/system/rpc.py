"""The only door to gRPC: calls and streams by the name of their method, over one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from polder.base.errors import PolderError

Option = tuple[str, int | str]
Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]
END = grpc.aio.EOF


class RpcError(PolderError):
    """A call that failed: gRPC's code (``UNAVAILABLE`` …) and the other side's words."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(details or code)
        self.code = code
        self.details = details


@dataclass(frozen=True, slots=True)
class Tls:
    """The authority of the other side (PEM), and the certificate and key shown to it, if any."""

    authority: Path
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files. Raises OSError."""
        chain = self.certificate.read_bytes() if self.certificate else None
        key = self.key.read_bytes() if self.key else None
        return grpc.ssl_channel_credentials(self.authority.read_bytes(), key, chain)


class Conversation:
    """One two-way stream; each side sends when it likes."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def send(self, message: Any) -> None:
        """Raises RpcError."""
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error
        except asyncio.InvalidStateError as error:
            raise RpcError("UNAVAILABLE", "the stream has ended") from error

    async def receive(self) -> Any:
        """The next message, None at the end. Raises RpcError."""
        try:
            found = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error
        except asyncio.InvalidStateError as error:
            raise RpcError("UNAVAILABLE", "the stream has ended") from error
        return None if found is END else found

    def end(self) -> None:
        """Ends both directions."""
        self._call.cancel()


class Channel:
    """One connection, made when it is first needed and again when it was lost."""

    def __init__(self, target: str, options: Sequence[Option] = (), tls: Tls | None = None) -> None:
        # No HTTP proxy of the environment may stand between us and what we were told to reach.
        settings = [("grpc.enable_http_proxy", 0), *options]
        if tls is None:
            self._channel = grpc.aio.insecure_channel(target, options=settings)
        else:
            self._channel = grpc.aio.secure_channel(target, tls.credentials(), options=settings)
        self._calls: dict[str, Any] = {}

    async def close(self) -> None:
        """Ends the connection and what runs over it."""
        await self._channel.close()

    async def call(self, method: str, request: Any, answer: type, timeout: float) -> Any:
        """One message for one message. Raises RpcError."""
        call = self._calls.get(method)
        if call is None:
            call = self._calls[method] = self._channel.unary_unary(
                method,
                request_serializer=type(request).SerializeToString,
                response_deserializer=answer.FromString,  # type: ignore[attr-defined]
            )
        try:
            return await call(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error

    async def plain(self, method: str, request: bytes, metadata: Sequence[tuple[str, str]], timeout: float) -> bytes:
        """One message for one message, both as they are on the wire. Raises RpcError."""
        call = self._channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        try:
            return bytes(await call(request, metadata=metadata, timeout=timeout))
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error

    async def events(self, method: str, request: Any, encode: Encode, decode: Decode) -> AsyncGenerator[Any, None]:
        """Many messages for one. Raises RpcError."""
        call = self._channel.unary_stream(method, request_serializer=encode, response_deserializer=decode)
        try:
            async for message in call(request):
                yield message
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error

    def converse(self, method: str, request: type, answer: type, metadata: Sequence[tuple[str, str]]) -> Conversation:
        """Opens a two-way stream."""
        call = self._channel.stream_stream(
            method,
            request_serializer=request.SerializeToString,  # type: ignore[attr-defined]
            response_deserializer=answer.FromString,  # type: ignore[attr-defined]
        )
        return Conversation(call(metadata=metadata))


def _failure(error: grpc.aio.AioRpcError) -> RpcError:
    return RpcError(error.code().name, error.details() or "")
