import msgspec

from polder.scheduler.amounts import SCORED_CPU, SCORED_MEMORY, pod_requests
from polder.scheduler.demand import KEPT, _shapes, is_pending
from tests.unit.scheduler.make import apart, container, demand, pod, term


def requests(*containers, **more):
    return pod_requests(pod("web", "acme", *containers, **more).spec)


def test_requests_are_the_sum_or_the_peak_of_initialization():
    found = requests(
        container("a", cpu="500m", memory="1Gi"),
        container("b", cpu="1"),
        initContainers=[container("i", cpu="2", memory="100Mi"), container("j", memory="3Gi")],
    )
    assert found == {"cpu": 2000, "memory": 3 * 1024**3}


def test_an_init_container_that_stays_counts_beside_the_others():
    side = {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "300m"}}}
    assert requests(container("a", cpu="1"), initContainers=[side, container("i", cpu="1200m")]) == {"cpu": 1500}


def test_limits_stand_in_for_requests():
    limited = {"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Mi"}, "requests": {"cpu": "100m"}}}
    assert requests(limited) == {"cpu": 100, "memory": 1024**2}


def test_fractions_round_up():
    assert requests(container("a", cpu="0.0001", memory="1500m")) == {"cpu": 1, "memory": 2}


def test_overhead_comes_on_top_and_what_is_asked_for_the_pod_as_a_whole_replaces_the_sum():
    overhead = {"cpu": "250m", "memory": "1Mi"}
    assert requests(container("a", cpu="1"), overhead=overhead) == {"cpu": 1250, "memory": 1024**2}
    whole = {"requests": {"cpu": "3"}}
    found = requests(container("a", cpu="1", memory="5", **{"x.dev/y": "2"}), resources=whole, overhead=overhead)
    assert found == {"cpu": 3250, "memory": 1024**2 + 5, "x.dev/y": 2}


def test_containers_that_ask_for_nothing_count_for_something_when_nodes_are_compared():
    found = demand("web", "acme", container("a"), container("b", cpu="1"), overhead={"cpu": "10m"})
    assert found.shape.scored == (1000 + SCORED_CPU + 10, 2 * SCORED_MEMORY)
    assert found.shape.requests == {"cpu": 1010}


def test_a_pod_that_is_resized_counts_with_what_it_holds():
    held = [{"name": "main", "resources": {"requests": {"cpu": "2"}}, "allocatedResources": {"cpu": "1500m"}}]
    resized = {"nodeName": "one", "status": {"containerStatuses": held}}
    assert demand("web", "acme", container(cpu="1"), **resized).shape.requests == {"cpu": 2000}
    assert demand("web", "acme", container(cpu="3"), **resized).shape.requests == {"cpu": 3000}


def test_a_quantity_that_is_none_refuses_the_pod_in_words():
    found = demand("web", "acme", container("a", cpu="much"))
    assert "resources" in found.refusal and "much" in found.refusal


def test_an_affinity_that_is_none_refuses_the_pod_in_words():
    assert "spec.affinity is malformed" in demand(affinity={"podAntiAffinity": 5}).refusal
    bad = apart(term(labelSelector={"matchExpressions": [{"key": "a", "operator": "Like"}]}))
    assert "selector" in demand(affinity=bad).refusal


def test_host_ports_are_asked_for_with_protocol_and_address_and_those_of_initialization_are_not():
    ports = [{"containerPort": 53, "hostPort": 53, "protocol": "UDP"}, {"containerPort": 80}]
    early = {"name": "i", "ports": [{"containerPort": 1, "hostPort": 1}]}
    found = demand("web", "acme", {"name": "a", "ports": ports}, initContainers=[early])
    assert found.shape.ports == frozenset({("UDP", 53, "0.0.0.0")})


def test_pods_of_one_controller_are_one_group_and_others_are_with_those_of_equal_labels():
    assert demand("a", owner="set").shape.group == demand("b", owner="set", labels={"x": "y"}).shape.group
    assert demand("a", labels={"x": "y"}).shape.group == demand("b", labels={"x": "y"}).shape.group
    assert demand("a", labels={"x": "y"}).shape.group != demand("a", labels={"x": "y"}, namespace="n").shape.group
    assert demand("a").shape.group == ""


def test_what_is_pending():
    assert is_pending(pod())
    assert not is_pending(pod(nodeName="one"))
    assert not is_pending(pod(schedulerName="mine"))
    assert not is_pending(pod(schedulingGates=[{"name": "wait"}]))
    assert not is_pending(pod(deleted="2026-01-01T00:00:00Z"))


def test_pods_of_one_template_share_their_shape_and_tenants_never_do():
    parts = {"labels": {"app": "web"}, "affinity": apart(term(app="web")), "tolerations": [{"operator": "Exists"}]}
    one, other = (demand(name, "acme", container(cpu="1"), **parts) for name in "xy")
    assert one.shape is other.shape
    assert one != other and one == demand("x", "acme", container(cpu="1"), **parts)
    assert demand("x", "globex", container(cpu="1"), **parts).shape != one.shape


def test_what_is_remembered_of_shapes_is_bounded():
    for number in range(KEPT + 10):
        demand("x", labels={"n": str(number)})
    assert len(_shapes) <= KEPT


def test_a_pod_in_the_cache_holds_no_message_and_no_volume_that_is_no_claim():
    volumes = [{"name": "a", "emptyDir": {}}, {"name": "b", "persistentVolumeClaim": {"claimName": "c"}}]
    cached = pod(volumes=[*volumes, {"name": "d", "ephemeral": {}}], affinity=apart(term(app="web")))
    assert [v.name for v in cached.spec.volumes] == ["b", "d"]
    assert type(cached.spec.affinity) is msgspec.Raw and b"podAntiAffinity" in bytes(cached.spec.affinity)
    from polder.scheduler.demand import demand_of

    assert demand_of(cached).claims == ("c", "web-d")
