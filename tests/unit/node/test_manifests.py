"""Static pods' files: what becomes of one, and of a folder of them that changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from polder.api.meta import tenant_of
from polder.api.staticpods import HASH, MIRROR, SEEN, SOURCE
from polder.base.errors import PermanentError
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.node.pods import manifests
from polder.node.pods.manifests import Folder, StaticPod, static_pod

TEXT = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  hostNetwork: true
  containers: [{name: main, image: toolbox}]
"""
WEB = Ref(ROOT, "default", "web-n1")


def made(text: str = TEXT, seen: str = "2026-01-01T00:00:00Z") -> StaticPod:
    return static_pod(text, "web.yaml", "n1", seen)


def test_a_file_makes_a_pod_of_the_platform_on_this_node() -> None:
    one = made()
    assert one.ref == WEB
    assert tenant_of(one.pod.metadata) == ROOT
    assert (one.pod.spec.node_name, one.pod.spec.restart_policy) == ("n1", "Always")
    assert [(t.operator, t.effect) for t in one.pod.spec.tolerations or []] == [("Exists", "NoExecute")]
    assert one.mirror["metadata"]["name"] == "web-n1"
    assert "uid" not in one.mirror["metadata"], "the API gives the mirror its own"
    annotations = one.mirror["metadata"]["annotations"]
    assert annotations[MIRROR] == annotations[HASH] == one.uid
    assert (annotations[SOURCE], annotations[SEEN]) == ("file", "2026-01-01T00:00:00Z")


def test_its_uid_says_what_it_is_not_when_it_was_seen() -> None:
    assert made(seen="later").uid == made().uid
    assert made(TEXT.replace("toolbox", "other")).uid != made().uid
    assert static_pod(TEXT, "web.yaml", "n2", "").uid != made().uid


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "it is no YAML"),
        ("- a", "apiVersion must be v1"),
        (TEXT.replace("kind: Pod", "kind: Service"), "kind Pod"),
        (TEXT.replace("name: web,", ""), "metadata.name is missing"),
        (TEXT.replace("name: web,", "name: Web_,"), "metadata.name"),
        (TEXT.replace("hostNetwork: true", ""), "spec.hostNetwork"),
        (TEXT.replace("labels: {app: web}", "annotations: {polder.dev/tenant: acme}"), "polder.dev/tenant"),
        (TEXT + "  replicas: 1", 'unknown field "spec.replicas"'),
        (TEXT + "  volumes: [{name: v, secret: {secretName: s}}]", "spec.volumes[0].secret"),
        (TEXT.replace("labels: {app: web}", "labels: 3"), "cannot be handled"),
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence_that_names_file_and_field(text: str, words: str) -> None:
    with pytest.raises(PermanentError) as refused:
        made(text)
    assert words in str(refused.value)
    assert "static pod web.yaml" in str(refused.value)


def test_a_folder_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder(tmp_path, "n1")
    assert folder.look("now") == {}
    (tmp_path / "web.yaml").write_text(TEXT)
    (tmp_path / ".web.yaml.swp").write_text("[")
    (tmp_path / "sub").mkdir()
    first = folder.look("now")[WEB]
    assert folder.look("later")[WEB] is first, "what did not change is not read again"
    os.utime(tmp_path / "web.yaml", ns=(1, 1))
    assert folder.look("later")[WEB] is first, "nor is another pod made of a file that says the same"
    (tmp_path / "web.yaml").write_text(TEXT.replace("toolbox", "other-image"))
    second = folder.look("later")[WEB]
    assert second.uid != first.uid
    (tmp_path / "web.yaml").write_text("half")
    assert folder.look("later")[WEB] is second, "it may be half written"
    assert "kind Pod" in caplog.text
    (tmp_path / "web.yaml").unlink()
    assert folder.look("later") == {}


def test_one_bad_file_does_not_hold_up_others_and_a_name_is_taken_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TEXT)
    (tmp_path / "b.yaml").write_text(TEXT.replace("toolbox", "other-image"))
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "d.json").write_text("{}")
    (tmp_path / "e.yaml").write_text(TEXT.replace("name: web", "name: last"))
    found = Folder(tmp_path, "n1").look("now")
    assert {ref.name: one.pod.spec.containers[0].image for ref, one in found.items()} == {
        "web-n1": "toolbox",
        "last-n1": "toolbox",
    }


def test_a_folder_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MOST", 2)
    monkeypatch.setattr(manifests, "LONGEST", len(TEXT) + 10)
    for number in range(4):
        (tmp_path / f"{number}.yaml").write_text(TEXT.replace("name: web", f"name: p{number}"))
    folder = Folder(tmp_path, "n1")
    assert len(folder.look("now")) == 2
    (tmp_path / "0.yaml").write_text(TEXT + "#" * 100)
    assert sorted(ref.name for ref in folder.look("now")) == ["p0-n1", "p1-n1"], "what it said before counts on"


@pytest.mark.parametrize("there", [True, False])
def test_no_folder_is_an_empty_one(tmp_path: Path, there: bool) -> None:
    assert Folder(tmp_path / "none" if there else None, "n1").look("now") == {}
