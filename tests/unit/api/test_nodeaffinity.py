"""Which taints tolerations bear."""

import time

from polder.api.core import Taint
from polder.api.nodeaffinity import Tolerations
from polder.api.podspec import Toleration

TAINT = Taint(key="a", value="x", effect="NoSchedule")


def bears(*tolerations: Toleration) -> bool:
    return Tolerations(tolerations).bear(TAINT)


def test_a_taint_is_borne_by_key_value_and_effect():
    assert bears(Toleration(operator="Exists"))
    assert bears(Toleration(operator="Exists", effect="NoSchedule"))
    assert bears(Toleration(key="a", operator="Exists"))
    assert bears(Toleration(key="a", value="x"))
    assert bears(Toleration(key="a", value="x", effect="NoSchedule"))
    assert not bears(Toleration(key="a", value="y"))
    assert not bears(Toleration(key="b", operator="Exists"))
    assert not bears(Toleration(key="a", value="x", effect="NoExecute"))
    assert not bears(Toleration(operator="Exists", effect="NoExecute"))
    assert not bears(Toleration())
    assert not bears()


def test_of_several_the_first_counts():
    first, second = Toleration(key="a", value="x", toleration_seconds=5), Toleration(operator="Exists")
    assert Tolerations([first, second]).first(TAINT) is first
    assert Tolerations([second, first]).first(TAINT) is second


def test_many_taints_and_many_tolerations_take_no_time():
    many = [Toleration(key=f"k{n}", operator="Exists", effect="NoExecute") for n in range(20_000)]
    many += [Toleration(operator="Exists", effect="NoSchedule", value=str(n)) for n in range(20_000)]
    borne, begun = Tolerations(many), time.monotonic()
    assert not any(borne.bear(Taint(key=f"x{n}", effect="NoExecute")) for n in range(20_000))
    assert time.monotonic() - begun < 1
