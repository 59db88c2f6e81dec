from polder.api.meta import OwnerReference
from polder.api.podspec import Container, ContainerPort, Resources, Toleration
from polder.scheduler.demand import SHORT, demand_of, is_pending, pod_requests
from tests.unit.scheduler.make import container, demand, pod


def test_requests_are_the_sum_or_the_peak_of_initialization():
    spec = pod(
        "web",
        "acme",
        container("a", cpu="500m", memory="1Gi"),
        container("b", cpu="1"),
        init_containers=[container("i", cpu="2", memory="100Mi"), container("j", memory="3Gi")],
    ).spec
    assert pod_requests(spec) == {"cpu": 2000, "memory": 3 * 1024**3}


def test_an_init_container_that_stays_counts_beside_the_others():
    side = Container(name="side", restart_policy="Always", resources=Resources(requests={"cpu": "300m"}))
    spec = pod("web", "acme", container("a", cpu="1"), init_containers=[side, container("i", cpu="1200m")]).spec
    assert pod_requests(spec) == {"cpu": 1500}


def test_limits_stand_in_for_requests():
    limited = Container(name="a", resources=Resources(limits={"cpu": "1", "memory": "1Mi"}, requests={"cpu": "100m"}))
    assert pod_requests(pod("web", "acme", limited).spec) == {"cpu": 100, "memory": 1024**2}


def test_fractions_round_up():
    assert demand("web", "acme", container("a", cpu="0.0001", memory="1500m")).requests == {"cpu": 1, "memory": 2}


def test_a_quantity_that_is_none_refuses_the_pod_in_words():
    found = demand("web", "acme", container("a", cpu="much"))
    assert "resources" in found.refusal and "much" in found.refusal


def test_pod_affinity_is_refused_by_name():
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "x"}]}}
    assert "spec.affinity.podAntiAffinity is not supported" in demand(affinity=affinity).refusal


def test_host_ports_are_asked_for_with_their_protocol():
    ports = [ContainerPort(container_port=53, host_port=53, protocol="UDP"), ContainerPort(container_port=80)]
    assert demand("web", "acme", Container(name="a", ports=ports)).ports == frozenset({("UDP", 53)})


def test_pods_of_one_controller_are_one_group_and_tenants_never_share_one():
    import msgspec

    owner = OwnerReference(api_version="apps/v1", kind="ReplicaSet", name="x", uid="same", controller=True)
    first, second = pod("a", "acme"), pod("a", "globex")
    owned = [
        demand_of(msgspec.structs.replace(p, metadata=msgspec.structs.replace(p.metadata, owner_references=[owner])))
        for p in (first, second)
    ]
    assert owned[0].group != owned[1].group
    assert owned[0].group != demand_of(first).group


def test_what_is_pending():
    assert is_pending(pod())
    assert not is_pending(pod(node_name="one"))
    assert not is_pending(pod(scheduler_name="mine"))


def test_demands_of_equal_pods_hold_what_they_ask_once():
    bears = [Toleration(key="k", operator="Exists")]
    parts = Container(
        name="a", resources=Resources(requests={"cpu": "100m"}), ports=[ContainerPort(container_port=1, host_port=2)]
    )
    one, other = (demand(name, "acme", parts, tolerations=list(bears)) for name in ("x", "y"))
    assert one.requests is other.requests
    assert one.scored is other.scored
    assert one.tolerations is other.tolerations
    assert one.ports is other.ports
    assert (one.requests, one.ports, one.tolerations) == ({"cpu": 100}, {("TCP", 2)}, tuple(bears))


def test_a_demand_of_many_parts_is_not_remembered():
    bears = [Toleration(key=f"k{number}") for number in range(SHORT + 1)]
    one, other = (demand(name, "acme", tolerations=list(bears)) for name in ("x", "y"))
    assert one.tolerations == other.tolerations == tuple(bears)
    assert one.tolerations is not other.tolerations
