"""What a cache holds once: equal parts of many objects, and an index's single objects."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from polder.api.core import ConfigMap
from polder.api.meta import ObjectMeta
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client import sharing
from polder.client.informer import _Index
from polder.client.sharing import Sharing


def decoded(labels, **more):
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "n", "labels": labels, **more}}
    return msgspec.json.decode(msgspec.json.encode(body), type=ConfigMap)


def test_equal_parts_become_one_and_mean_the_same():
    share = Sharing()
    one, other = (decoded({"app": "a"}, annotations={"polder.dev/tenant": "t"}, name=name) for name in "xy")
    assert one.metadata.labels is not other.metadata.labels
    share(one)
    share(other)
    assert one.metadata.labels is other.metadata.labels == {"app": "a"}
    assert one.metadata.annotations is other.metadata.annotations == {"polder.dev/tenant": "t"}
    assert one.metadata.namespace is other.metadata.namespace
    assert one.kind is other.kind
    assert [one.metadata.name, other.metadata.name] == ["x", "y"]


def test_what_differs_in_key_value_or_order_stays_apart():
    share = Sharing()
    maps = [{"a": "b"}, {"b": "a"}, {"a": "b", "c": "d"}, {"a": "c", "b": "d"}, {"c": "d", "a": "b"}]
    for labels in maps:
        obj = decoded(labels)
        share(obj)
        assert list(obj.metadata.labels.items()) == list(labels.items())


def test_the_memory_is_bounded_in_maps_and_in_their_size(monkeypatch):
    monkeypatch.setattr(sharing, "KEPT", 8)
    share = Sharing()
    for number in range(50):
        share(decoded({"n": str(number)}))
        assert len(share) <= 8
    before = len(share)
    share(decoded({"n": "x" * sharing.LIGHT}))
    assert len(share) == before


NAMES, KEYS = st.sampled_from("abcd"), st.sets(st.sampled_from("xyz"))


@given(st.lists(st.tuples(NAMES, st.none() | KEYS), max_size=40))
def test_an_index_finds_what_a_look_at_all_objects_finds(steps):
    """Keys go from no object over one to several and back."""
    index: _Index[ConfigMap] = _Index(lambda obj: list(obj.data or {}))
    there: dict[Ref, ConfigMap] = {}
    for name, keys in steps:
        ref = Ref(TenantName("t"), "n", name)
        new = None if keys is None else ConfigMap(metadata=ObjectMeta(name=name), data=dict.fromkeys(keys, ""))
        index.change(ref, there.pop(ref, None), new)
        if new is not None:
            there[ref] = new
        for key in "xyz":
            found = sorted(obj.metadata.name for obj in index.get(key))
            assert found == sorted(ref.name for ref, obj in there.items() if key in obj.data)
            assert all(obj is there[Ref(TenantName("t"), "n", obj.metadata.name)] for obj in index.get(key))
    for ref, obj in there.items():
        index.change(ref, obj, None)
    assert not index._found
