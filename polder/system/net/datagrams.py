"""Many datagrams in one call (recvmmsg(2), sendmmsg(2)): for whoever answers more of them than calls can be made."""

from __future__ import annotations

import ctypes
import socket
import struct

_libc = ctypes.CDLL(None)
_receive, _send = _libc.recvmmsg, _libc.sendmmsg
_receive.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_send.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_ADDRESS = {socket.AF_INET: 16, socket.AF_INET6: 28}
"""sizeof(struct sockaddr_in), sizeof(struct sockaddr_in6)."""
_HEADER = struct.Struct("@QIxxxxQQQQIxxxxIxxxx")
"""struct mmsghdr on 64 bits: name and its length, vector and its length, control and its length, flags; the datagram's length."""
_WORDS, _LENGTH = _HEADER.size // 4, 56 // 4


class Batch:
    """Room for ``count`` datagrams of at most ``size`` bytes in and ``largest`` out, of one address family. It may serve many
    sockets, one after the other: what ``receive`` gave is good until the next call of it.
    """

    def __init__(self, family: socket.AddressFamily, count: int, size: int, largest: int) -> None:
        self.count, self.size, self.largest = count, size, largest
        self.incoming, self.outgoing = bytearray(count * size), bytearray(count * largest)
        self.view = memoryview(self.incoming)
        self._family, self._address = family, _ADDRESS[family]
        self._names = bytearray(count * self._address)
        self._keep: list[object] = []
        self._names_at = self._place(self._names)
        headers_in, self._in_at = self._headers(self.incoming, size)
        headers_out, self._out_at = self._headers(self.outgoing, largest)
        self.lengths = memoryview(headers_in).cast("I")[_LENGTH::_WORDS]
        """Bytes of each datagram that came."""
        self._out_names = memoryview(headers_out).cast("Q")[:: _HEADER.size // 8]
        self._out_lengths = self._vectors[1::2]
        self.waiting = 0
        """How many answers are to be sent."""

    def _place(self, memory: bytearray) -> int:
        held = (ctypes.c_char * len(memory)).from_buffer(memory)
        self._keep.append(held)
        return ctypes.addressof(held)

    def _headers(self, data: bytearray, size: int) -> tuple[bytearray, int]:
        vectors, at = bytearray(self.count * 16), self._place(data)
        vectors_at = self._place(vectors)
        headers = bytearray(self.count * _HEADER.size)
        for n in range(self.count):
            struct.pack_into("@QQ", vectors, n * 16, at + n * size, size)
            name = self._names_at + n * self._address
            _HEADER.pack_into(headers, n * _HEADER.size, name, self._address, vectors_at + n * 16, 1, 0, 0, 0, 0)
        self._vectors = memoryview(vectors).cast("Q")
        return headers, self._place(headers)

    def receive(self, number: int, most: int) -> int:
        """Takes up to ``most`` datagrams from the socket with this file descriptor; how many came."""
        return max(0, int(_receive(number, self._in_at, min(most, self.count), socket.MSG_DONTWAIT, None)))

    def address(self, index: int) -> bytes:
        """Whom a datagram came from, as 4 or 16 bytes."""
        at = index * self._address
        return bytes(self._names[at + 4 : at + 8] if self._address == 16 else self._names[at + 8 : at + 24])

    def peer(self, index: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """The same as ``socket.sendto`` takes it."""
        at = index * self._address
        port = int.from_bytes(self._names[at + 2 : at + 4], "big")
        text = socket.inet_ntop(self._family, self.address(index))
        if self._address == 16:
            return text, port
        return text, port, 0, struct.unpack_from("@I", self._names, at + 24)[0]

    def reply(self, index: int, answer: bytes, echo: int = 0) -> None:
        """Notes an answer to whom datagram ``index`` came from: the datagram's first ``echo`` bytes, then ``answer``. Raises
        ValueError for more than ``largest`` bytes.
        """
        slot = self.waiting
        at, size = slot * self.largest, echo + len(answer)
        if size > self.largest:
            raise ValueError(f"an answer of {size} bytes does not fit into a datagram of {self.largest}")
        if echo:
            self.outgoing[at : at + echo] = self.view[index * self.size : index * self.size + echo]
        self.outgoing[at + echo : at + size] = answer
        self._out_lengths[slot] = size
        self._out_names[slot] = self._names_at + index * self._address
        self.waiting = slot + 1

    def send(self, number: int) -> None:
        """Sends the noted answers. What cannot be sent now is lost, as datagrams may be."""
        done = 0
        while done < self.waiting:
            sent = _send(number, self._out_at + done * _HEADER.size, self.waiting - done, socket.MSG_DONTWAIT)
            done += sent if sent > 0 else 1
        self.waiting = 0
