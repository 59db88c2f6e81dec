"""On which nodes claims can be used, and what is bound for a node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from polder.api.storagefacts import Claim, StorageClassFacts, Volume
from polder.base.ids import TenantName
from polder.scheduler import claims
from polder.scheduler.claims import ClaimRules, claim_rules
from polder.scheduler.cluster import CLAIMS, Cluster
from polder.scheduler.core import Decision, decide
from polder.scheduler.demand import Demand
from tests.unit.scheduler.make import HOST, ZONE, cluster, demand, node, place

Raw = dict[str, Any]
ACME = TenantName("acme")


class Shelf:
    """A book that is written by hand."""

    def __init__(self) -> None:
        self.claims: dict[tuple[str, str, str], Claim] = {}
        self.held: dict[tuple[str, str], Volume] = {}
        self.classes: dict[tuple[str, str], StorageClassFacts] = {}

    def claim(self, tenant: TenantName, namespace: str, name: str) -> Claim | None:
        return self.claims.get((tenant, namespace, name))

    def volume(self, tenant: TenantName, name: str) -> Volume | None:
        return self.held.get((tenant, name))

    def volumes(self, tenant: TenantName, storage_class: str) -> Iterable[Volume]:
        return [v for (t, _), v in self.held.items() if t == tenant and v.spec.storage_class_name == storage_class]

    def storage_class(self, tenant: TenantName, name: str) -> StorageClassFacts | None:
        return self.classes.get((tenant, name)) or self.classes.get(("root", name))

    def add_claim(self, name: str, *, bound: str = "", phase: str = "Pending", modes: Any = None, **meta: Any) -> None:
        notes = {**({claims.BOUND: "yes"} if bound else {}), **meta.pop("annotations", {})}
        raw = {
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "annotations": notes, **meta},
            "spec": {
                "storageClassName": "late", "volumeName": bound, "accessModes": modes or ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
            "status": {"phase": "Bound" if bound else phase},
        }  # fmt: skip
        self.claims["acme", "default", name] = msgspec.convert(raw, Claim)

    def add_volume(self, name: str, *, size: str = "1Gi", on: str = "", phase: str = "Available", **more: Any) -> None:
        term = {"matchExpressions": [{"key": HOST, "operator": "In", "values": [on]}]}
        raw = {
            "metadata": {"name": name, "labels": more.pop("labels", None)},
            "spec": {
                "storageClassName": "late", "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
                "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}} if on else None, **more,
            },
            "status": {"phase": phase},
        }  # fmt: skip
        self.held["acme", name] = msgspec.convert(raw, Volume)

    def add_class(self, tenant: str = "root", mode: str = claims.LATE, **more: Any) -> None:
        raw = {"metadata": {"name": "late"}, "provisioner": "x.dev", "volumeBindingMode": mode, **more}
        self.classes[tenant, "late"] = msgspec.convert(raw, StorageClassFacts)


@pytest.fixture
def shelf() -> Shelf:
    made = Shelf()
    made.add_class()
    return made


def using(*names: str) -> Demand:
    volumes = [{"name": f"v{n}", "persistentVolumeClaim": {"claimName": name}} for n, name in enumerate(names)]
    return demand("web", "acme", volumes=volumes)


def rules_of(shelf: Shelf, wanted: Demand, state: Cluster) -> ClaimRules:
    found = claim_rules(wanted, shelf, state.claim_users(wanted))
    assert found is not None
    return found


def asked(shelf: Shelf, wanted: Demand, state: Cluster | None = None) -> Decision:
    state = state or cluster(node("one", labels={ZONE: "a"}), node("two", labels={ZONE: "b"}))
    return decide(wanted, state, rules_of(shelf, wanted, state))


def test_a_pod_without_claims_has_no_rules(shelf: Shelf) -> None:
    assert claim_rules(demand(), shelf, {}) is None


def test_what_is_not_there_or_not_bound_is_said(shelf: Shelf) -> None:
    said = asked(shelf, using("data"))
    assert said.message == '0/2 nodes are available: persistentvolumeclaim "data" not found.'
    assert said.causes == {CLAIMS} and said.nodes == 2
    shelf.add_claim("data", deletionTimestamp="2026-01-01T00:00:00Z")
    assert "is being deleted" in asked(shelf, using("data")).message
    shelf.add_claim("data", phase="Lost")
    assert "bound to non-existent persistentvolume" in asked(shelf, using("data")).message
    shelf.add_claim("data")
    shelf.add_class(mode="Immediate")
    assert asked(shelf, using("data")).message == (
        "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    )


def test_a_bound_volume_says_where_the_pod_goes(shelf: Shelf) -> None:
    shelf.add_claim("data", bound="pv")
    assert "non-existent pv(s)" in asked(shelf, using("data")).message
    shelf.add_volume("pv", on="two")
    assert asked(shelf, using("data")).node == "two"
    shelf.add_volume("pv", on="three")
    assert asked(shelf, using("data")).message == (
        "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity."
    )
    shelf.add_volume("pv", labels={ZONE: "x__a"})
    assert asked(shelf, using("data")).node == "one"
    shelf.add_volume("pv", labels={ZONE: "x"})
    assert asked(shelf, using("data")).message.endswith("2 node(s) had no available volume zone.")


def test_the_smallest_volume_that_suits_is_taken(shelf: Shelf) -> None:
    shelf.add_class(provisioner=claims.NO_PROVISIONER)
    shelf.add_claim("data")
    assert asked(shelf, using("data")).message == (
        "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
    )
    shelf.add_volume("large", size="5Gi", on="two")
    shelf.add_volume("fits", size="2Gi", on="two")
    shelf.add_volume("small", size="1Mi", on="two")
    shelf.add_volume("used", on="two", phase="Bound", claimRef={"name": "x", "namespace": "default"})
    shelf.add_volume("block", on="two", volumeMode="Block")
    shelf.add_volume("shared", on="two", accessModes=["ReadOnlyMany"])
    state = cluster(node("one"), node("two"))
    assert asked(shelf, using("data"), state).node == "two"
    shelf.add_claim("more")
    both = rules_of(shelf, using("data", "more"), state)
    plan = both.plan(state.seen_by(ACME).by_name["two"])
    assert plan is not None
    assert [(b.claim.metadata.name, b.volume.metadata.name) for b in plan if b.volume] == [
        ("data", "fits"),
        ("more", "large"),
    ]
    shelf.add_claim("third")
    assert rules_of(shelf, using("data", "more", "third"), state).plan(state.seen_by(ACME).by_name["two"]) is None


def test_a_volume_that_is_kept_for_the_claim_is_its(shelf: Shelf) -> None:
    shelf.add_class(provisioner=claims.NO_PROVISIONER)
    shelf.add_claim("data")
    for uid, chosen in (("other", ""), ("uid-data", "one"), ("", "one")):
        kept = {"namespace": "default", "name": "data", "uid": uid}
        shelf.add_volume("pv", on="one", claimRef=kept, phase="Bound")
        assert asked(shelf, using("data")).node == chosen


def test_a_volume_is_made_where_the_class_may(shelf: Shelf) -> None:
    shelf.add_claim("data")
    state = cluster(node("one", labels={ZONE: "a"}), node("two", labels={ZONE: "b"}))
    clause = [{"matchLabelExpressions": [{"key": ZONE, "values": ["b"]}]}]
    shelf.add_class(allowedTopologies=clause)
    assert asked(shelf, using("data"), state).node == "two"
    plan = rules_of(shelf, using("data"), state).plan(state.seen_by(ACME).by_name["two"])
    assert plan == [claims.Binding(shelf.claims["acme", "default", "data"], None)]
    shelf.add_class(tenant="acme", allowedTopologies=[{"matchLabelExpressions": [{"key": ZONE, "values": ["a"]}]}])
    assert asked(shelf, using("data"), state).node == "one", "the tenant's own class comes first"
    shelf.add_claim("data", annotations={claims.SELECTED_NODE: "two"})
    assert asked(shelf, using("data"), state).node == ""


def test_a_claim_for_one_pod_is_used_by_one(shelf: Shelf) -> None:
    shelf.add_claim("data", bound="pv", modes=[claims.ONE_POD])
    shelf.add_volume("pv")
    state = cluster(node("one"), node("two"))
    place(state, demand("first", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]), "one")
    said = asked(shelf, using("data"), state)
    assert "2 node has pod using PersistentVolumeClaim with the same name" in said.message
    state.free_pod("acme-first")
    assert asked(shelf, using("data"), state).node
    assert (CLAIMS, ACME) in state.wakes


def test_what_cannot_be_read_refuses_in_words(shelf: Shelf) -> None:
    shelf.add_class(provisioner=claims.NO_PROVISIONER)
    shelf.add_claim("data")
    shelf.add_volume("pv", nodeAffinity={"required": {"nodeSelectorTerms": 5}})
    assert "cannot be read" in asked(shelf, using("data")).message
