"""What metrics ask for, and how fast sizes follow: the pure parts of autoscaling."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from polder.api.autoscaling import AutoscalerSpec, MeasuredPod, ScalingBehavior
from polder.api.resourcemetrics import PodMetrics
from polder.api.selectors import parse_labels
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.controllers import autoscale_pure as pure
from polder.controllers.autoscale_limits import History, limit
from polder.controllers.autoscale_pure import Measured, MetricError, Sample, Tolerances
from polder.controllers.autoscale_selectors import Selectors

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LONG_AGO = "2026-05-01T10:00:00Z"


def pod(name: str, cpu: str = "100m", phase: str = "Running", *, ready: str = "True", **more: Any) -> MeasuredPod:
    containers = [{"name": "c", "resources": {"requests": {"cpu": cpu} if cpu else {}}}]
    conditions = [{"type": "Ready", "status": ready, "lastTransitionTime": more.pop("since", LONG_AGO)}]
    status = {"phase": phase, "conditions": conditions, "startTime": more.pop("began", LONG_AGO)}
    meta = {"name": name, "labels": {"app": "web"}, **more}
    return msgspec.convert({"metadata": meta, "spec": {"containers": containers}, "status": status}, MeasuredPod)


def used(**values: int) -> dict[str, Sample]:
    return {name: Sample(value, NOW, 15.0) for name, value in values.items()}


def measured(pods: list[MeasuredPod], samples: dict[str, Sample], replicas: int = 0) -> Measured:
    return Measured(pods, samples, replicas or len(pods), NOW, Tolerances())


def size(pods: list[MeasuredPod], samples: dict[str, Sample], target: int = 50, replicas: int = 0) -> int:
    return pure.by_utilization(measured(pods, samples, replicas), "cpu", "", target).replicas


def test_utilization_is_of_what_was_asked_for():
    found = pure.by_utilization(measured([pod("a"), pod("b")], used(a=100, b=60)), "cpu", "", 50)
    assert (found.replicas, found.utilization, found.average) == (4, 80, 80)


def test_nothing_changes_near_the_target():
    pods = [pod("a"), pod("b")]
    assert size(pods, used(a=54, b=54)) == 2
    assert size(pods, used(a=56, b=56)) == 3
    assert size(pods, used(a=20, b=20)) == 1


def test_pods_that_tell_nothing_count_against_a_change():
    pods = [pod("a"), pod("b"), pod("c")]
    assert size(pods, used(a=100, b=100)) == 4  # the third as if it used nothing
    assert size(pods, used(a=10, b=10)) == 3  # as if it used everything


def test_pods_that_begin_do_not_make_a_size_grow():
    pods = [pod("a"), pod("b", phase="Pending"), pod("c", ready="False", began="2026-05-01T11:59:00Z")]
    assert size(pods, used(a=120, c=900)) == 3
    early = pod("d", began="2026-05-01T11:59:00Z", since="2026-05-01T11:59:50Z")
    assert pure.group([early], used(d=5), "cpu", NOW).unready == {"d"}
    assert pure.group([early], used(d=5), "memory", NOW).ready == 1
    gone = [pod("a"), pod("e", deletionTimestamp=LONG_AGO), pod("f", phase="Failed")]
    assert pure.group(gone, used(a=5, e=5, f=5), "cpu", NOW).ignored == {"e", "f"}


def test_what_asked_for_nothing_has_no_utilization():
    with pytest.raises(MetricError, match="missing request for cpu in container c of Pod b"):
        size([pod("a"), pod("b", cpu="")], used(a=1, b=1))
    with pytest.raises(MetricError, match="pods might be unready"):
        size([pod("a")], {})
    with pytest.raises(MetricError, match="no pods returned"):
        size([], {})


def test_a_mean_is_compared_with_a_mean():
    found = pure.by_average(measured([pod("a"), pod("b")], used(a=300, b=500)), "memory", 200)
    assert (found.replicas, found.average, found.utilization) == (4, 400, None)


def test_values_that_all_share():
    pods = [pod("a"), pod("b"), pod("c", ready="False")]
    assert pure.by_value(3000, 1000, measured(pods, {})) == 6
    assert pure.by_value(1050, 1000, measured(pods, {})) == 3
    shared = pure.by_share(5000, 1000, 2, Tolerances())
    assert (shared.replicas, shared.average) == (5, 2500)


def test_samples_of_pods_and_of_one_container():
    usage = [{"name": "c", "usage": {"cpu": "250m", "memory": "1Ki"}}, {"name": "d", "usage": {"cpu": "1"}}]
    raw = {"metadata": {"name": "a"}, "timestamp": "2026-05-01T12:00:00Z", "window": "1m1.5s", "containers": usage}
    metrics = [msgspec.convert(raw, PodMetrics)]
    assert pure.samples_of(metrics, "cpu")["a"] == Sample(1250, NOW, 61.5)
    assert pure.samples_of(metrics, "cpu", "c")["a"].value == 250
    assert pure.samples_of(metrics, "memory") == {}
    assert pure.samples_of(metrics, "cpu", "x") == {}


def test_tolerances_are_configured_for_each_direction():
    behavior = msgspec.convert({"scaleUp": {"tolerance": "500m"}, "scaleDown": {}}, ScalingBehavior)
    found = pure.tolerances_of(behavior)
    assert (found.holds(1.5), found.holds(1.51), found.holds(0.9), found.holds(0.89)) == (True, False, True, False)


def spec(least: int = 1, most: int = 10, **behavior: Any) -> AutoscalerSpec:
    raw: dict[str, Any] = {"minReplicas": least, "maxReplicas": most}
    if behavior:
        raw["behavior"] = behavior
    return msgspec.convert(raw, AutoscalerSpec)


def test_sizes_stay_between_their_bounds_and_do_not_jump():
    def bounded(current: int, wanted: int) -> tuple[int, str]:
        found = limit(spec(2, 9), History("u"), current, wanted, 0.0)
        return found.replicas, found.limited[1]

    assert bounded(5, 1) == (2, "TooFewReplicas")
    assert bounded(5, 20) == (9, "TooManyReplicas")
    assert bounded(3, 8) == (6, "ScaleUpLimit")
    assert bounded(1, 8) == (4, "ScaleUpLimit")
    assert bounded(3, 4) == (4, "DesiredWithinRange")


def test_a_size_shrinks_when_five_minutes_agree():
    history = History("u", [(0.0, 6)])
    held = limit(spec(), history, 6, 2, 100.0)
    assert (held.replicas, held.able[1]) == (6, "ScaleDownStabilized")
    history.prune(spec(), 301.0)
    free = limit(spec(), history, 6, 2, 301.0)
    assert (free.replicas, free.able[1]) == (2, "ReadyForNewScale")


def test_windows_of_both_directions():
    rules = {
        "scaleUp": {"stabilizationWindowSeconds": 60, "policies": []},
        "scaleDown": {"stabilizationWindowSeconds": 0},
    }
    slow = spec(**rules)
    history = History("u", [(0.0, 2)])
    held = limit(slow, history, 2, 8, 30.0)
    assert (held.replicas, held.able[1]) == (2, "ScaleUpStabilized")
    assert limit(slow, history, 2, 8, 89.0).replicas == 8
    assert limit(slow, History("u"), 8, 3, 0.0).replicas == 3


def test_policies_bound_the_pace():
    pods = {"type": "Pods", "value": 2, "periodSeconds": 60}
    percent = {"type": "Percent", "value": 100, "periodSeconds": 60}
    most = spec(1, 50, scaleUp={"policies": [pods, percent]}, scaleDown={"policies": [pods]})
    least = spec(1, 50, scaleUp={"policies": [pods, percent], "selectPolicy": "Min"}, scaleDown={"policies": [pods]})
    never = spec(1, 50, scaleUp={"selectPolicy": "Disabled"}, scaleDown={"selectPolicy": "Disabled"})
    assert limit(most, History("u"), 5, 40, 0.0).replicas == 10
    assert limit(least, History("u"), 5, 40, 0.0).replicas == 7
    assert limit(never, History("u"), 5, 40, 0.0).limited[:2] == ("True", "ScaleUpLimit")
    history = History("u")
    history.changed(5, 10, 10.0)
    assert limit(most, history, 10, 40, 30.0).replicas == 10
    assert limit(most, history, 10, 40, 71.0).replicas == 20
    window = spec(1, 50, scaleUp={}, scaleDown={"policies": [pods], "stabilizationWindowSeconds": 0})
    down = limit(window, History("u"), 9, 1, 0.0)
    assert (down.replicas, down.limited[1]) == (7, "ScaleDownLimit")


def test_histories_are_bounded_by_what_is_looked_at():
    history = History("u", [(float(n), 1) for n in range(0, 3000, 15)], [(0.0, 1)], [(0.0, 1)])
    history.prune(spec(), 3000.0)
    assert len(history.recommended) <= 20
    assert not history.added
    assert not history.taken


def test_two_that_size_the_same_pods_are_found():
    known, acme = Selectors(), TenantName("acme")
    pods = [pod("a")]
    one, two, other = (Ref(acme, "shop", "one"), Ref(acme, "shop", "two"), Ref(TenantName("globex"), "shop", "one"))
    assert known.sharing(one, parse_labels("app=web"), pods) == []
    assert known.sharing(other, parse_labels("app=web"), pods) == []
    assert known.sharing(two, parse_labels("app in (web)"), pods) == [one]
    known.forget(one)
    assert known.sharing(two, parse_labels("app in (web)"), pods) == []


def test_quantities_are_written_as_the_api_has_them():
    assert (pure.quantity_of(250), pure.quantity_of(2000)) == ("250m", "2")
    assert pure.quantity_of(2048 * 1024 * 1000, "memory") == "2Mi"
    assert timedelta(seconds=pure.seconds_of("15s")) == timedelta(seconds=15)
