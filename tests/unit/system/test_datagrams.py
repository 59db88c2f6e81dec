"""Datagrams in batches, between real sockets."""

from __future__ import annotations

import socket

import pytest

from polder.system.net.datagrams import Batch


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_each_gets_its_own_answer(family: socket.AddressFamily, host: str) -> None:
    batch = Batch(family, 8, 64, 128)
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((host, 0))
        clients = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(5)]
        try:
            assert batch.receive(server.fileno(), 8) == 0
            for n, client in enumerate(clients):
                client.settimeout(2)
                client.bind((host, 0))
                client.sendto(b"question-%d" % n, server.getsockname())
            assert batch.receive(server.fileno(), 3) == 3
            sent = []
            for n in range(3):
                assert batch.incoming[n * 64 : n * 64 + batch.lengths[n]] == b"question-%d" % n
                assert batch.address(n) == socket.inet_pton(family, host)
                assert batch.peer(n) == clients[n].getsockname()
                if n != 1:
                    batch.reply(n, b"answer-%d" % n, 2)
                    sent.append(n)
            batch.send(server.fileno())
            assert batch.waiting == 0
            for n in sent:
                assert clients[n].recv(100) == b"quanswer-%d" % n
            assert batch.receive(server.fileno(), 100) == 2, "the rest"
            assert batch.peer(1) == clients[4].getsockname()
            with pytest.raises(ValueError, match="129 bytes"):
                batch.reply(1, b"x" * 127, 2)
            batch.reply(1, b"x" * 128)
            batch.send(server.fileno())
            assert clients[4].recv(200) == b"x" * 128
        finally:
            for client in clients:
                client.close()


def test_what_is_too_long_is_cut_and_a_closed_socket_gives_nothing() -> None:
    batch = Batch(socket.AF_INET, 4, 16, 16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"a" * 100, server.getsockname())
        assert batch.receive(server.fileno(), 4) == 1
        assert batch.lengths[0] == 16
    assert batch.receive(-1, 4) == 0
    batch.reply(0, b"lost")
    batch.send(-1)
    assert batch.waiting == 0
