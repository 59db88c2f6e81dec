"""What the stub and the agent say to each other over the unix socket.

Request, ended by the writer's shutdown: the line ``polder-cni 1``, then each CNI variable as ``NAME=VALUE`` and a zero
byte, an empty entry (one more zero byte), then stdin as it came. Answer, ended likewise: the exit code in decimal, a
newline, then what goes to stdout.
"""

from __future__ import annotations

from polder.base.errors import PermanentError

HELLO = b"polder-cni 1\n"
MAX_REQUEST = 1 << 20
"""Bytes of one request: far more than any runtime sends."""


class WireError(PermanentError):
    """Not what a stub sends."""


def unpack_request(data: bytes) -> tuple[dict[str, str], bytes]:
    """Environment and stdin. Raises WireError."""
    if len(data) > MAX_REQUEST:
        raise WireError(f"the network config has more than {MAX_REQUEST} bytes")
    if not data.startswith(HELLO):
        raise WireError("the caller is no polder-cni of this version")
    head, end, stdin = data[len(HELLO) :].partition(b"\0\0")
    if not end:
        raise WireError("the request ends inside the environment")
    environment: dict[str, str] = {}
    for entry in head.split(b"\0"):
        name, equals, value = entry.decode(errors="surrogateescape").partition("=")
        if equals:
            environment[name] = value
    return environment, stdin


def pack_request(environment: dict[str, str], stdin: bytes) -> bytes:
    """The inverse, for callers in Python."""
    head = b"".join(f"{name}={value}".encode(errors="surrogateescape") + b"\0" for name, value in environment.items())
    return HELLO + (head or b"\0") + b"\0" + stdin


def pack_answer(code: int, output: bytes) -> bytes:
    """Exit code and output."""
    return b"%d\n%b" % (code, output)


def unpack_answer(data: bytes) -> tuple[int, bytes]:
    """The inverse. Raises WireError."""
    head, newline, output = data.partition(b"\n")
    if not newline or not head.isdigit():
        raise WireError("the agent ended without an answer")
    return int(head), output
