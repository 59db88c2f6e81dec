"""Netlink bytes against the layouts in the kernel's headers, and by round trips."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.system.net import codec, nfvalues, requests
from polder.system.net.nfvalues import Field, ValueTextError, fields_of
from polder.system.net.requests import NewLink, NewRoute

IP4, MAC, PROTOCOL, PORT, MARK, NAME = Field(7, 4), Field(9, 6), Field(12, 1), Field(13, 2), Field(19, 4), Field(41, 16)


def test_a_message_has_length_type_flags_and_sequence() -> None:
    message = codec.Message(requests.GETLINK, 0, b"\1\2\3")
    raw = message.pack(9, ack=True)
    assert struct.unpack_from("=IHHII", raw) == (19, requests.GETLINK, 0x5, 9, 0)
    assert len(raw) == 20, "padded, the length is not"


def test_attributes_are_padded_and_found_again() -> None:
    raw = codec.text(3, "ab") + codec.u8(4, 7) + codec.nested(5, codec.u32(1, 2), codec.u16be(2, 0x1234))
    have = codec.attrs(raw)
    assert len(raw) % 4 == 0
    assert codec.as_text(have[3]) == "ab"
    assert have[4] == b"\7"
    assert codec.attrs(have[5]) == {1: struct.pack("=I", 2), 2: b"\x12\x34"}


def test_attributes_that_are_cut_off_end_the_reading() -> None:
    assert list(codec.each_attr(b"\0\0\0\0rest")) == []
    assert list(codec.each_attr(codec.u8(1, 1) + b"\x05")) == [(1, b"\1")]


@given(st.dictionaries(st.integers(1, 200), st.binary(max_size=40), max_size=8))
def test_any_attributes_round_trip(given_: dict[int, bytes]) -> None:
    assert codec.attrs(b"".join(codec.attr(kind, value) for kind, value in given_.items())) == given_


@pytest.mark.parametrize("bad", ["0a:58", "0a:58:0a:00:00:05:06", "hello", ""])
def test_no_mac(bad: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        codec.mac_bytes(bad)


def test_a_veths_peer_has_its_own_header_and_namespace() -> None:
    message = requests.add_veth(
        NewLink("p1", mtu=1400, master=4), NewLink("eth0", "0a:58:0a:00:00:05", netns=11, up=False)
    )
    have = codec.attrs(message.body, requests.LINK.size)
    info = codec.attrs(have[18])
    assert codec.as_text(info[1]) == "veth"
    peer = codec.attrs(info[2])[1]
    assert requests.LINK.unpack_from(peer) == (0, 0, 0, 0, 0), "not up: the kernel refuses that"
    inner = codec.attrs(peer, requests.LINK.size)
    assert codec.as_text(inner[3]) == "eth0"
    assert inner[1] == bytes.fromhex("0a580a000005")
    assert codec.as_u32(inner[28]) == 11
    assert codec.as_u32(have[10]) == 4


def test_a_route_on_link_has_link_scope_and_a_default_no_destination() -> None:
    on_link = requests.ROUTE.unpack_from(requests.route(NewRoute("10.0.0.0/8", 3), add=True).body)
    assert (on_link[1], on_link[6]) == (8, 253)
    default = requests.route(NewRoute("0.0.0.0/0", 3, via="169.254.1.1", onlink=True), add=True)
    head = requests.ROUTE.unpack_from(default.body)
    assert (head[1], head[6], head[8]) == (0, 0, 4)
    assert 1 not in codec.attrs(default.body, requests.ROUTE.size)


def test_types_come_from_nfts_number() -> None:
    assert fields_of((41 << 12) | (9 << 6) | 7, 28) == (NAME, MAC, IP4)
    assert fields_of(7, 4) == (IP4,)
    assert fields_of((41 << 6) | 4, 24) == (NAME, Field(4, 8)), "what has no size of its own takes the rest"


def test_a_key_is_packed_as_nft_packs_it() -> None:
    packed = nfvalues.pack((NAME, MAC, IP4), "p1 . 0a:58:0a:00:00:05 . 10.0.0.6")
    assert packed == b"p1".ljust(16, b"\0") + bytes.fromhex("0a580a0000050000") + bytes([10, 0, 0, 6])
    packed = nfvalues.pack((IP4, PROTOCOL, PORT, MARK), "10.96.0.1 . tcp . 443 . 1")
    assert packed == bytes([10, 96, 0, 1, 6, 0, 0, 0, 1, 0xBB, 0, 0]) + struct.pack("=I", 1)


addresses = st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number)))
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-+_", min_size=1, max_size=15)
macs = st.binary(min_size=6, max_size=6).map(codec.mac_text)
protocols = st.sampled_from(["tcp", "udp", "icmp", "sctp", "200"])


@given(names, macs, addresses)
def test_port_keys_round_trip(name: str, mac: str, address: str) -> None:
    fields, key = (NAME, MAC, IP4), f"{name} . {mac} . {address}"
    assert nfvalues.unpack(fields, nfvalues.pack(fields, key)) == key
    assert nfvalues.unpack(fields, nfvalues.pack(fields, nfvalues.quoted(key))) == key


@given(addresses, protocols, st.integers(0, 65535), st.integers(0, 2**32 - 1))
def test_service_keys_round_trip(address: str, protocol: str, port: int, mark: int) -> None:
    fields, key = (IP4, PROTOCOL, PORT, MARK), f"{address} . {protocol} . {port} . {mark}"
    assert nfvalues.unpack(fields, nfvalues.pack(fields, key)) == key


@given(addresses, st.integers(0, 32))
def test_prefixes_round_trip(address: str, length: int) -> None:
    net = ip_network(f"{address}/{length}", strict=False)
    low, high = nfvalues.pack_range((IP4,), str(net))
    assert (low, high) == (net.network_address.packed, net.broadcast_address.packed)
    assert nfvalues.unpack_range((IP4,), low, high) == (str(net.network_address) if length == 32 else str(net))


@given(addresses, addresses)
def test_ranges_mean_the_same_addresses_after_a_round_trip(one: str, other: str) -> None:
    first, last = sorted((IPv4Address(one), IPv4Address(other)))
    bounds = nfvalues.pack_range((IP4,), f"{first}-{last}")
    assert nfvalues.pack_range((IP4,), nfvalues.unpack_range((IP4,), *bounds)) == bounds


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ((IP4,), "10.0.0.1 . 80"),
        ((IP4,), "fd00::1"),
        ((IP4,), "10.0.0.256"),
        ((PORT,), "65536"),
        ((PORT,), "-1"),
        ((PROTOCOL,), "tcpp"),
        ((NAME,), "a-name-of-16-byte"),
        ((MAC,), "0a:58"),
    ],
)
def test_what_does_not_fit_is_refused(fields: tuple[Field, ...], text: str) -> None:
    with pytest.raises(ValueTextError):
        nfvalues.pack(fields, text)


def test_names_are_quoted_for_nft_and_nothing_else_is() -> None:
    key = "polder+0001 . 0a:58:0a:00:00:05 . 10.0.0.5 . tcp . 443 . 10.0.0.0/8 . 1-5 . 10.0.0.1-10.0.0.9"
    words = nfvalues.quoted(key).split(" . ")
    assert words == ['"polder+0001"', *key.replace("tcp", '"tcp"').split(" . ")[1:]]


@pytest.mark.parametrize(
    "text", ["fd00::1%x", "10.0.0.1; flush ruleset", "a\nb", "a . tcp . 1 } ; add", "$x", "10.0.0.1 # x"]
)
def test_what_nft_could_take_for_more_than_a_value_is_refused(text: str) -> None:
    with pytest.raises(ValueTextError, match="no key or value"):
        nfvalues.quoted(text)
