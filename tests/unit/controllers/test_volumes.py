"""Which volume a claim gets, what becomes of volumes, and what is made for a claim: pure."""

from typing import Any

import msgspec
import pytest

from polder.api.storagefacts import Claim, StorageClassFacts, Volume
from polder.api.storageusers import UsingPod
from polder.controllers import volumes_pure as pure
from polder.controllers.ephemeral_claims import claim_of
from polder.controllers.local_volumes import DRIVER, node_of, volume_of

CLAIM = {"namespace": "shop", "name": "data", "uid": "c"}


def claim(size: str = "2Gi", notes: Any = None, phase: str = "Pending", **spec: Any) -> Claim:
    base = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "manual",
        "resources": {"requests": {"storage": size}},
    }
    meta = {**CLAIM, "resourceVersion": "7", "annotations": notes or {}}
    return msgspec.convert({"metadata": meta, "spec": {**base, **spec}, "status": {"phase": phase}}, Claim)


def volume(name: str = "v", size: str = "2Gi", phase: str = "Available", meta: Any = None, **spec: Any) -> Volume:
    base = {
        "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
        "storageClassName": "manual",
        "capacity": {"storage": size},
    }
    known = {"name": name, "uid": name, **(meta or {})}
    return msgspec.convert({"metadata": known, "spec": {**base, **spec}, "status": {"phase": phase}}, Volume)


def chosen(found: Claim, *volumes: Volume, late: bool = False) -> str:
    best = pure.best(found, volumes, late=late)
    return best.metadata.name if best is not None else ""


def test_the_smallest_that_fits_is_chosen():
    assert chosen(claim(), volume("big", "9Gi"), volume("right", "3Gi"), volume("small", "1Gi")) == "right"
    assert chosen(claim(), volume("used", phase="Bound")) == ""
    assert chosen(claim(), volume("going", meta={"deletionTimestamp": "2026-01-01T00:00:00Z"})) == ""
    assert (
        chosen(claim(selector={"matchLabels": {"a": "b"}}), volume("x"), volume("y", meta={"labels": {"a": "b"}}))
        == "y"
    )


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"accessModes": ["ReadWriteMany"]}, "incompatible accessMode"),
        ({"volumeMode": "Block"}, "incompatible volumeMode"),
        ({"storageClassName": "fast"}, "storageClassName does not match"),
        ({"resources": {"requests": {"storage": "3Gi"}}}, "requested PV is too small"),
    ],
)
def test_a_volume_must_be_what_is_asked_for(spec, why):
    assert pure.mismatch(volume(), claim(**spec)) == why


def test_one_that_is_kept_for_the_claim_goes_first_and_is_all_that_a_waiting_one_gets():
    kept = volume("kept", "9Gi", claimRef={"namespace": "shop", "name": "data"})
    another = volume("another", claimRef={**CLAIM, "uid": "x"})
    assert chosen(claim(), volume("right"), kept) == "kept"
    assert chosen(claim(), another) == ""
    assert chosen(claim(), volume("right"), late=True) == ""
    assert chosen(claim(), volume("right"), kept, late=True) == "kept"


def test_a_claim_waits_for_its_first_pod_until_that_has_a_node():
    late = msgspec.convert({"volumeBindingMode": "WaitForFirstConsumer"}, StorageClassFacts)
    assert pure.is_late(claim(), late)
    assert not pure.is_late(claim(notes={pure.SELECTED_NODE: "node-1"}), late)
    assert not pure.is_late(claim(), StorageClassFacts())
    assert not pure.is_late(claim(), None)


def test_each_step_of_binding_is_taken_once():
    free, found = volume(), claim()
    first = pure.volume_patch(free, found)
    assert first is not None
    assert (first["spec"]["claimRef"]["uid"], first["metadata"]["annotations"]) == ("c", {pure.BY_CONTROLLER: "yes"})
    assert pure.volume_patch(volume(claimRef=CLAIM), found) is None
    named = pure.volume_patch(volume(claimRef={"namespace": "shop", "name": "data"}), found)
    assert named is not None
    assert "annotations" not in named["metadata"]
    second = pure.claim_patch(found, free)
    assert second is not None
    assert second["spec"] == {"volumeName": "v"}
    assert pure.claim_patch(claim(notes={pure.BOUND: "yes"}, volumeName="v"), free) is None


def test_what_becomes_of_a_volume():
    bound = claim(volumeName="v", phase="Bound")
    assert pure.fate_of(volume(), None, DRIVER).phase == "Available"
    assert pure.fate_of(volume(claimRef={**CLAIM, "uid": ""}), claim(), DRIVER) == pure.Fate("Available", look=True)
    assert pure.fate_of(volume(claimRef=CLAIM), bound, DRIVER) == pure.Fate("Bound")
    assert pure.fate_of(volume(claimRef=CLAIM), claim(), DRIVER).look
    elsewhere = claim(volumeName="other")
    by_us = volume(claimRef=CLAIM, meta={"annotations": {pure.BY_CONTROLLER: "yes"}})
    assert pure.fate_of(by_us, elsewhere, DRIVER).unbind
    assert not pure.fate_of(volume(claimRef=CLAIM), elsewhere, DRIVER).unbind
    assert pure.fate_of(volume(claimRef=CLAIM), None, DRIVER) == pure.Fate("Released")


def test_what_is_left_behind_goes_as_its_policy_says():
    delete = {"claimRef": CLAIM, "persistentVolumeReclaimPolicy": "Delete"}
    made = {"annotations": {pure.PROVISIONED_BY: DRIVER}}
    own = volume(meta=made, csi={"driver": DRIVER, "volumeHandle": "v"}, **delete)
    assert pure.fate_of(own, None, DRIVER).delete
    by_hand = volume(csi={"driver": DRIVER, "volumeHandle": "v"}, **delete)
    assert pure.fate_of(by_hand, None, DRIVER) == pure.Fate("Released")
    theirs = volume(csi={"driver": "csi.example.com", "volumeHandle": "v"}, **delete)
    assert pure.fate_of(theirs, None, DRIVER) == pure.Fate("Released")
    path = pure.fate_of(volume(hostPath={"path": "/x"}, **delete), None, DRIVER)
    assert (path.phase, path.told) == ("Failed", ("VolumeFailedDelete",))


def test_a_volume_that_is_let_go_forgets_its_claim_or_only_its_uid():
    by_us = volume(claimRef=CLAIM, meta={"annotations": {pure.BY_CONTROLLER: "yes"}})
    assert pure.unbound(by_us)["spec"] == {"claimRef": None}
    assert pure.unbound(volume(claimRef=CLAIM))["spec"]["claimRef"]["name"] == "data"


def test_a_volume_of_our_own_is_named_by_its_claim_and_stays_on_its_node():
    local = msgspec.convert({"metadata": {"name": "local"}, "reclaimPolicy": "Delete"}, StorageClassFacts)
    made = volume_of(claim(), local, "node-1")
    assert made["metadata"]["name"] == made["spec"]["csi"]["volumeHandle"] == "pvc-c"
    assert made["spec"]["capacity"] == {"storage": "2Gi"}
    assert node_of(msgspec.convert(made, Volume)) == "node-1"
    assert node_of(volume()) == ""


def test_a_claim_made_with_a_pod_is_the_pod_s():
    template = {"metadata": {"labels": {"a": "b"}, "name": "not-mine"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    volumes = [{"name": "d", "ephemeral": {"volumeClaimTemplate": template}}]
    pod = msgspec.convert({"metadata": {"name": "p", "uid": "u"}, "spec": {"volumes": volumes}}, UsingPod)
    made = claim_of(pod, (pod.spec.volumes or [])[0])
    assert (made["metadata"]["name"], made["metadata"]["labels"]) == ("p-d", {"a": "b"})
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert made["spec"] == {"accessModes": ["ReadWriteOnce"]}
