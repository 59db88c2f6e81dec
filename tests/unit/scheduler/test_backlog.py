from hypothesis import given
from hypothesis import strategies as st

from polder.scheduler.backlog import AT_ONCE, LONGEST_DELAY, LONGEST_REST, Backlog
from tests.unit.scheduler.make import demand


def taken(backlog, now=0.0):
    found = []
    while (one := backlog.take(now)) is not None:
        found.append(one)
        backlog.drop(one.uid)
    return found


def test_a_thousand_pods_of_one_tenant_do_not_starve_one_of_another():
    backlog = Backlog()
    for number in range(1000):
        backlog.put(demand(f"p{number:04}", "acme"))
    backlog.put(demand("single", "globex"))
    order = [d.ref.tenant for d in taken(backlog)]
    assert len(order) == 1001
    assert "globex" in order[:2]


def test_a_tenant_that_has_its_share_is_passed_over_until_it_has_less():
    backlog = Backlog()
    for number in range(3):
        backlog.put(demand(f"p{number}", "acme"))
    assert backlog.next_at({"acme"}) is None
    backlog.put(demand("single", "globex"))
    assert backlog.take(0.0, {"acme"}).ref.tenant == "globex"
    assert backlog.take(0.0, {"acme"}) is None
    assert backlog.next_at({"acme"}) is None
    assert backlog.next_at() == 0.0
    assert backlog.take(0.0).ref.tenant == "acme"


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 20), min_size=1))
def test_tenants_take_turns(counts):
    backlog = Backlog()
    for tenant, count in counts.items():
        for number in range(count):
            backlog.put(demand(f"p{number}", tenant))
    order = [d.ref.tenant for d in taken(backlog)]
    # Among the first k turns no tenant with pods left is more than one behind another.
    for k in range(1, len(order) + 1):
        served = {t: order[:k].count(t) for t in counts}
        waiting = [served[t] for t in counts if served[t] < counts[t]]
        assert not waiting or max(served.values()) - min(waiting) <= 1
    assert sorted(order) == sorted(t for t, n in counts.items() for _ in range(n))


def test_priority_and_age_order_a_tenant_s_own_pods():
    backlog = Backlog()
    backlog.put(demand("old", created="2026-01-01T00:00:00Z"))
    backlog.put(demand("older", created="2025-01-01T00:00:00Z"))
    backlog.put(demand("urgent", priority=10))
    backlog.put(demand("other", "globex"))
    mine = [d.ref.name for d in taken(backlog) if d.ref.tenant == "acme"]
    assert mine == ["urgent", "older", "old"]


def test_a_refused_pod_rests_until_a_change_and_backs_off():
    backlog = Backlog()
    backlog.put(demand("a"))
    now, waits = 0.0, []
    for _ in range(7):
        one = backlog.take(now)
        assert one is not None
        backlog.refuse(one.uid, now, {"cpu"})
        assert backlog.take(now + 30) is None, "it rests"
        backlog.wake()
        assert backlog.take(now) is None, "it backs off"
        at = backlog.next_at()
        waits.append(at - now)
        now = at
    assert waits == [1, 2, 4, 8, LONGEST_DELAY, LONGEST_DELAY, LONGEST_DELAY]


def test_without_a_change_it_is_tried_again_after_a_long_rest():
    backlog = Backlog()
    backlog.put(demand("a"))
    backlog.refuse(backlog.take(0.0).uid, 0.0, {"cpu"})
    assert backlog.take(LONGEST_REST - 1) is None
    assert backlog.next_at() == LONGEST_REST
    assert backlog.take(LONGEST_REST) is not None


def test_a_failed_binding_is_tried_again_without_a_change():
    backlog = Backlog()
    backlog.put(demand("a"))
    backlog.fail(backlog.take(0.0).uid, 0.0)
    assert backlog.take(0.5) is None
    assert backlog.take(1.0) is not None


def test_a_pod_waits_once_and_a_dropped_one_never_comes_up():
    backlog = Backlog()
    for _ in range(3):
        backlog.put(demand("a"))
    backlog.put(demand("b"))
    backlog.drop("acme-a")
    assert [d.ref.name for d in taken(backlog)] == ["b"]
    assert backlog.next_at() is None and len(backlog) == 0


def test_a_changed_pod_is_looked_at_again():
    backlog = Backlog()
    backlog.put(demand("a", nodeSelector={"x": "y"}))
    backlog.refuse(backlog.take(0.0).uid, 0.0, {"cpu"})
    backlog.put(demand("a", nodeSelector={"x": "y"}))
    assert backlog.take(5.0) is None, "an unchanged pod keeps resting"
    backlog.put(demand("a"))
    assert backlog.take(5.0) == demand("a")


def test_memory_does_not_grow_with_wakes():
    backlog = Backlog()
    for number in range(10):
        backlog.put(demand(f"p{number}"))
    now = 0.0
    for _ in range(200):
        now += 1.0
        while (one := backlog.take(now)) is not None:
            backlog.refuse(one.uid, now, {"cpu"})
        backlog.wake()
    assert len(backlog) == 10
    assert len(backlog._later) < 200


def rest(backlog, name, causes, tenant="acme", now=0.0):
    backlog.put(demand(name, tenant))
    taken = backlog.take(now)
    assert taken.ref.name == name
    backlog.refuse(taken.uid, now, causes)


def names(backlog, now=20.0):
    return sorted(d.ref.name for d in taken(backlog, now))


def test_only_what_a_refusal_was_about_wakes_a_pod():
    backlog = Backlog()
    rest(backlog, "room", {"cpu", "node"})
    rest(backlog, "near", {"around"})
    rest(backlog, "theirs", {"around"}, "globex")
    backlog.wake("memory")
    backlog.wake("cpu", "globex")
    assert names(backlog) == []
    backlog.wake("around", "acme")
    assert names(backlog) == ["near"]
    backlog.wake("cpu")
    assert names(backlog) == ["room"]
    backlog.wake()
    assert names(backlog) == ["theirs"]
    assert not backlog._resting and not backlog._woken


def test_ten_thousand_that_wake_come_a_few_at_a_time_and_hold_up_nobody():
    backlog = Backlog()
    for number in range(10_000):
        backlog.put(demand(f"p{number:05}", "acme"))
    while (one := backlog.take(0.0)) is not None:
        backlog.refuse(one.uid, 0.0, {"cpu"})
    rest(backlog, "theirs", {"cpu"}, "globex")
    backlog.wake("cpu")
    backlog.put(demand("single", "initech"))
    first = [backlog.take(20.0).ref.name for _ in range(3)]
    assert "single" in first and "theirs" in first
    assert sum(len(line) for line in backlog._lines.values()) <= 3 * AT_ONCE
    assert len(taken(backlog, 20.0)) == 9_999


def test_a_pod_that_goes_while_it_rests_leaves_nothing():
    backlog = Backlog()
    rest(backlog, "a", {"cpu", "ports"})
    backlog.drop("acme-a")
    assert not backlog._resting
    rest(backlog, "b", {"cpu"})
    backlog.wake("cpu")
    backlog.drop("acme-b")
    assert taken(backlog, 20.0) == [] and backlog.next_at() is None


def test_one_may_be_called_without_patience():
    backlog = Backlog()
    backlog.put(demand("a"))
    backlog.refuse(backlog.take(0.0).uid, 0.0, {"cpu"}, patient=False)
    backlog.wake("cpu")
    assert backlog.take(0.0) is not None
    backlog.refuse("acme-a", 0.0, {"cpu"})
    backlog.recall("acme-a")
    assert backlog.take(0.0) is not None
