"""What proxies mean by a name and a path, and how they lead links back; how many streams there may be."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from polder.api.errors import ApiError
from polder.apiserver.proxy_html import TAG_LIMIT, HtmlRewriter, Links
from polder.apiserver.proxy_pass import split_path
from polder.apiserver.proxying import Asked, parse_name, pod_target
from polder.apiserver.streamshares import ShareSettings, StreamShares
from polder.base.ids import ROOT, TenantName

OWN = "/api/v1/namespaces/n/pods/p/proxy"
LINKS = Links(OWN, "10.0.0.5:80", "api:6443")
ACME = TenantName("acme")


def pod(**status: object) -> dict[str, object]:
    spec = {"nodeName": "n1", "containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]}]}
    return {"metadata": {"name": "p"}, "spec": spec, "status": {"podIP": "10.0.0.5", **status}}


@pytest.mark.parametrize(
    ("text", "found"),
    [("p", ("", "p", "")), ("p:80", ("", "p", "80")), ("https:p:443", ("https", "p", "443")), (":p:", ("", "p", ""))],
)
def test_names_have_schemes_and_ports(text: str, found: tuple[str, str, str]) -> None:
    assert parse_name(text, "pod") == Asked(*found)


@pytest.mark.parametrize("text", ["", ":80", "ftp:p:21", "http::80", "a:b:c:d"])
def test_other_names_are_none(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_name(text, "pod")
    assert (caught.value.code, caught.value.message) == (400, f'invalid pod request "{text}"')


def test_a_pods_first_port_is_meant_where_none_is_named() -> None:
    assert pod_target(pod(), Asked("", "p", ""), ACME).port == 8080
    target = pod_target(pod(), Asked("", "p", "81"), ROOT)
    assert (target.address, target.port, target.node, target.direct) == ("10.0.0.5", 81, "n1", False)


@pytest.mark.parametrize("address", ["", "127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "fe80::1", "224.0.0.1", "x"])
def test_addresses_that_are_no_pods_are_not_dialled(address: str) -> None:
    with pytest.raises(ApiError) as caught:
        pod_target(pod(podIP=address), Asked("", "p", ""), ACME)
    assert (caught.value.code, caught.value.message) == (400, "address not allowed")


def test_a_named_port_of_a_pod_is_unknown_as_upstream_has_it() -> None:
    with pytest.raises(ApiError) as caught:
        pod_target(pod(), Asked("", "p", "http"), ACME)
    assert caught.value.code == 503


@pytest.mark.parametrize(
    ("path", "namespaced", "own", "rest"),
    [
        (OWN, True, OWN, ""),
        (OWN + "/", True, OWN, "/"),
        (OWN + "/a%2Fb//c/", True, OWN, "/a%2Fb//c/"),
        ("/tenants/t" + OWN + "/x", True, "/tenants/t" + OWN, "/x"),
        ("/api/v1/nodes/n1/proxy/metrics", False, "/api/v1/nodes/n1/proxy", "/metrics"),
    ],
)
def test_what_follows_the_proxys_path_goes_on_as_it_was_sent(path: str, namespaced: bool, own: str, rest: str) -> None:
    assert split_path(path, namespaced) == (own, rest)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("/x", OWN + "/x"),
        ("/x/?q=/y#f", OWN + "/x/?q=/y#f"),
        ("/", OWN + "/"),
        ("/a/../b", OWN + "/b"),
        ("http://10.0.0.5:80/x", OWN + "/x"),
        ("https://api:6443/x", "https://api:6443" + OWN + "/x"),
        (OWN + "/x", OWN + "/x"),
        ("x", "x"),
        ("#f", "#f"),
        ("http://elsewhere/x", "http://elsewhere/x"),
        ("//elsewhere/x", "//elsewhere/x"),
        ("mailto:a@b", "mailto:a@b"),
        ("http://[", "http://["),
    ],
)
def test_links_lead_back_through_the_proxy(url: str, found: str) -> None:
    assert LINKS.rewrite(url) == found


PAGE = b"""<!DOCTYPE html><!-- <a href="/comment"> --><html><a href="/x">1</a><A HREF='/y?a=1&amp;b=2' id=z>2</A><a href=/u>3</a>
<img src="rel.png" usemap="/m" alt="/x"><script>var a = "<a href='/no'>";</SCRIPT ><script src=/s.js></script>
<form action = "/f"> 1 < 2 <b/> <a href="http://10.0.0.5:80/h"/><a title="/t" href><style>a{}</style><p title='>' data="/d">"""
SHOWN = (
    PAGE.replace(b'"/x">1', b'"%s/x">1' % OWN.encode())
    .replace(b"'/y", b"'%s/y" % OWN.encode())
    .replace(b"=/u", b"=%s/u" % OWN.encode())
    .replace(b'usemap="/m', b'usemap="%s/m' % OWN.encode())
    .replace(b"=/s.js", b"=%s/s.js" % OWN.encode())
    .replace(b'= "/f', b'= "%s/f' % OWN.encode())
    .replace(b"http://10.0.0.5:80/h", b"%s/h" % OWN.encode())
)


def rewritten(page: bytes, size: int) -> bytes:
    rewriter = HtmlRewriter(LINKS.rewrite)
    return b"".join(rewriter.feed(page[at : at + size]) for at in range(0, len(page), size)) + rewriter.flush()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 50, 5000])
def test_pages_are_rewritten_however_they_come(size: int) -> None:
    assert rewritten(PAGE, size) == SHOWN


@pytest.mark.parametrize(
    "page",
    [b"<a" * 200_000, b'<a x="' * 100_000, b"<a " + b"x " * 200_000, b"<" * 400_000, b"<!--" * 100_000, b"<script>" * 50_000,
     b"<a href = " + b" " * 300_000 + b"x", b"<a " + b"x" * 300_000 + b"=", b'<a href="' + b"y" * 300_000],
    ids=range(9),
)  # fmt: skip
def test_hostile_pages_pass_as_they_are_and_take_no_long_time(page: bytes) -> None:
    began = time.process_time()
    rewriter = HtmlRewriter(LINKS.rewrite)
    out, held = b"", 0
    for at in range(0, len(page), 2048):
        out += rewriter.feed(page[at : at + 2048])
        held = max(held, len(rewriter._waiting))
    assert out + rewriter.flush() == page
    assert held <= TAG_LIMIT
    assert time.process_time() - began < 3


def test_one_tenant_leaves_the_others_their_streams() -> None:
    shares = StreamShares(ShareSettings(tenant=3, node=4, both=2))
    with shares.one(ACME, "n1"), shares.one(ACME, "n1"):
        for node, why in (("n1", "of this tenant on this node"),):
            with pytest.raises(ApiError) as caught, shares.one(ACME, node):
                pass
            assert caught.value.code == 429
            assert why in caught.value.message
        with shares.one(ACME, "n2"), pytest.raises(ApiError), shares.one(ACME, "n3"):
            pass
        others = [shares.one(TenantName(name), "n1") for name in "bcd"]
        with others[0], others[1], pytest.raises(ApiError, match="4 streams on this node"), others[2]:
            pass
    assert not shares._open, "who has none costs nothing"


def test_tenants_that_take_all_they_may_leave_streams_for_every_other() -> None:
    """Three of 256 had a node's 768, and nobody else had a log or a command there."""
    shares, held = StreamShares(), ExitStack()

    def opened(tenant: str) -> int:
        for number in range(1000):
            try:
                held.enter_context(shares.one(TenantName(tenant), "n1"))
            except ApiError as error:
                assert error.code == 429
                return number
        return 1000

    with held:
        greedy = [opened(f"greedy-{number}") for number in range(100)]
        assert greedy[0] == 256 and greedy[:3] == sorted(greedy[:3], reverse=True), "alone it has what one may have"
        assert min(greedy) >= 2, "each has a connection forwarded, with its session"
        assert opened("late") >= 2
        assert opened("greedy-0") == 0
    assert not shares._open
    with held:
        assert opened("greedy-0") == 256, "what was given up is there again"
