"""Facts about a link of this process's network namespace (netdevice(7))."""

from __future__ import annotations

import fcntl
import socket
import struct

from polder.base.errors import PermanentError

_SIOCGIFMTU = 0x8921
_IFREQ = struct.Struct("16si20x")


def link_mtu(name: str) -> int:
    """The link's MTU in bytes. Raises PermanentError if there is no such link."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFMTU, _IFREQ.pack(name.encode(), 0))
        except OSError as error:
            raise PermanentError(
                f"link {name}: {error.strerror}; name the node's uplink in its configuration"
            ) from error
    return int(_IFREQ.unpack(answer)[1])
