from polder.base.ids import TenantName
from polder.scheduler.core import decide, enough
from polder.scheduler.nodes import facts_of, overlay_of
from tests.unit.scheduler.make import ZONE, cluster, container, demand, node, place, refused


def test_no_nodes():
    assert refused(demand(), cluster()) == "no nodes available to schedule pods"


def test_reasons_are_counted_and_worded_as_upstream():
    big = demand("web", "acme", container("a", cpu="5", memory="9Gi"))
    state = cluster(node("one"), node("two"), node("three", unschedulable=True))
    assert refused(big, state) == (
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu, 2 Insufficient memory."
    )


def test_a_refusal_says_what_may_end_it_and_where_pods_leaving_would_help():
    state = cluster(node("one"), node("two"), node("three", unschedulable=True))
    place(state, demand("other", "acme", container("a", cpu="4")), "one")
    decision = decide(demand("web", "acme", container("a", cpu="4", memory="9Gi")), state)
    assert decision.causes == {"cpu", "memory", "node"} and decision.hopeful == (), "9Gi are more than any node has"
    assert decide(demand("b", "acme", container("a", cpu="3")), cluster(node("x"))).node == "x"
    place(state, demand("third", "acme", container("a", cpu="2")), "two")
    assert decide(demand("web", "acme", container("a", cpu="4")), state).hopeful == ("one", "two")


def test_what_is_placed_counts_and_what_ends_does_not():
    state = cluster(node("one"))
    place(state, demand("first", "globex", container("a", cpu="3")), "one", assumed=True)
    wanted = demand("web", "acme", container("a", cpu="2"))
    assert decide(wanted, state).message == "0/1 nodes are available: 1 Insufficient cpu."
    state.free_pod("globex-first")
    assert decide(wanted, state).node == "one"


def test_an_exact_fit_fits():
    assert decide(demand("web", "acme", container("a", cpu="4", memory="8Gi")), cluster(node("one"))).node == "one"


def test_the_number_of_pods_is_a_resource():
    state = cluster(node("one", allocatable={"pods": "1"}))
    place(state, demand("first"), "one")
    assert decide(demand("second"), state).message == "0/1 nodes are available: 1 Too many pods."


def test_a_resource_that_no_node_has():
    wanted = demand("web", "acme", container("a", **{"acme.dev/gpu": "1"}))
    assert refused(wanted, cluster(node("one"))) == "0/1 nodes are available: 1 Insufficient acme.dev/gpu."
    assert decide(wanted, cluster(node("one", allocatable={"acme.dev/gpu": "1"}))).node == "one"


def test_selector_and_affinity():
    disk = node("one", labels={"disk": "fast", "zone": "7"})
    assert decide(demand("a", "root", nodeSelector={"disk": "fast"}), cluster(disk)).node == "one"
    message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    assert refused(demand("a", "root", nodeSelector={"disk": "slow"}), cluster(disk)) == message

    def affinity(group="matchExpressions", **requirement):
        terms = {"nodeSelectorTerms": [{group: [requirement]}]}
        found = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
        return demand("a", "root", affinity=found)

    assert decide(affinity(key="zone", operator="Gt", values=["6"]), cluster(disk)).node == "one"
    assert refused(affinity(key="zone", operator="Lt", values=["6"]), cluster(disk)) == message
    assert refused(affinity(key="disk", operator="NotIn", values=["fast"]), cluster(disk)) == message
    assert decide(affinity(key="absent", operator="DoesNotExist"), cluster(disk)).node == "one"
    by_name = affinity("matchFields", key="metadata.name", operator="In", values=["two"])
    assert decide(by_name, cluster(disk, node("two"))).node == "two"


def test_preferred_node_affinity_outweighs_a_little_room():
    preferred = [{"weight": 10, "preference": {"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["b"]}]}}]
    wish = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    state = cluster(node("one", labels={ZONE: "a"}), node("two", labels={ZONE: "b"}))
    place(state, demand("other", "globex", container("a", cpu="1")), "two")
    assert decide(demand(), state).node == "one"
    assert decide(demand(affinity=wish), state).node == "two"


def test_only_ready_nodes_and_root_may_say_otherwise():
    late = cluster(node("one", ready="Unknown"))
    assert refused(demand(), late) == "0/1 nodes are available: 1 node(s) were not ready."
    everything = [{"operator": "Exists"}]
    assert refused(demand(tolerations=everything), late).endswith("were not ready.")
    assert decide(demand("agent", "root", tolerations=everything), late).node == "one"


def test_taints_are_counted_and_not_told():
    taints = [{"key": "reserved-for", "value": "globex", "effect": "NoSchedule"}]
    state = cluster(node("one", taints=taints))
    assert refused(demand(), state) == "0/1 nodes are available: 1 node(s) had untolerated taint(s)."
    own = [{"key": "reserved-for", "value": "globex", "effect": "NoSchedule"}]
    assert decide(demand(tolerations=own), state).node == "one"


def test_a_taint_that_prefers_is_a_preference():
    shy = node("one", taints=[{"key": "a", "effect": "PreferNoSchedule"}])
    assert decide(demand(), cluster(shy, node("two"))).node == "two"
    assert decide(demand(), cluster(shy)).node == "one"


def host_port(name: str, port: int, address: str = "", protocol: str = "TCP"):
    given = {"containerPort": 1, "hostPort": port, "hostIP": address, "protocol": protocol}
    return demand(name, "root", {"name": "a", "ports": [given]})


def test_host_ports_conflict_by_address_and_protocol():
    state = cluster(node("one"))
    place(state, host_port("a", 80, "10.0.0.1"), "one")
    for free in (host_port("b", 80, "10.0.0.2"), host_port("b", 81), host_port("b", 80, "10.0.0.1", "UDP")):
        assert decide(free, state).node == "one"
    for taken in (host_port("b", 80), host_port("b", 80, "0.0.0.0"), host_port("b", 80, "10.0.0.1")):
        assert "didn't have free ports for the requested pod ports" in refused(taken, state)
    place(state, host_port("c", 90), "one")
    assert "didn't have free ports" in refused(host_port("d", 90, "10.0.0.1"), state)
    state.free_pod("root-a")
    assert decide(host_port("b", 80), state).node == "one"


def test_the_emptier_node_wins():
    state = cluster(node("one"), node("two"))
    place(state, demand("other", "globex", container("a", cpu="2")), "one")
    assert decide(demand(), state).node == "two"


def test_a_node_is_used_evenly_in_cpu_and_memory():
    state = cluster(node("one", allocatable={"memory": "4Gi"}), node("two", allocatable={"memory": "4Gi"}))
    place(state, demand("cpu", "globex", container("a", cpu="2", memory="1Mi")), "one")
    place(state, demand("memory", "globex", container("a", cpu="10m", memory="2Gi")), "two")
    assert decide(demand("web", "acme", container("a", cpu="10m", memory="2Gi")), state).node == "one"
    assert decide(demand("web", "acme", container("a", cpu="2", memory="1Mi")), state).node == "two"


def test_pods_of_a_group_spread_over_equal_nodes():
    state = cluster(*(node(f"n{i}") for i in range(4)))
    used = []
    for number in range(8):
        wanted = demand(f"web-{number}", owner="set")
        chosen = decide(wanted, state).node
        place(state, wanted, chosen, assumed=True)
        used.append(chosen)
    assert {n: used.count(n) for n in used} == {f"n{i}": 2 for i in range(4)}


def test_images_draw_root_s_pods_and_a_tenant_s_only_to_its_own():
    image = [{"names": ["reg/app:1"], "sizeBytes": 900 * 1024 * 1024}]
    state = cluster(node("one", images=image), node("two"), node("three"))
    wanted = {"name": "a", "image": "reg/app:1", "resources": {"requests": {"cpu": "1"}}}
    for number in range(8):
        name = f"p{number}"
        assert decide(demand(name, "root", wanted), state).node == "one"
    assert {decide(demand(f"p{n}", "acme", wanted), state).node for n in range(16)} != {"one"}
    mine = demand("mine", "acme", wanted)
    place(state, mine, "one")
    for other in ("two", "three"):
        place(state, demand(f"x-{other}", "globex", container("a", cpu="1")), other)
    assert {decide(demand(f"q{n}", "acme", wanted), state).node for n in range(8)} == {"one"}


def test_an_assumption_is_forgotten_but_a_fact_is_not():
    state = cluster(node("one"))
    place(state, demand("a"), "one", assumed=True)
    place(state, demand("b"), "one")
    for uid in ("acme-a", "acme-b"):
        state.forget(uid)
    assert state.placement("acme-a") is None
    assert state.placement("acme-b") is not None
    assert state.usage("one").pods == 1


def test_pods_may_be_seen_before_their_node():
    state = cluster()
    place(state, demand("a", "acme", container("x", cpu="3")), "one")
    state.set_node(facts_of(node("one")))
    assert decide(demand("b", "acme", container("x", cpu="2")), state).node == ""
    state.remove_node("one")
    state.remove_pod("acme-a")
    assert len(state) == 0 and not state._usage


def test_what_a_tenant_put_on_a_node_counts_for_its_own_pods() -> None:
    acme, globex = TenantName("acme"), TenantName("globex")
    made = cluster(node("n1", labels={ZONE: "7"}), node("n2"))
    taint = {"key": "mine", "value": "x", "effect": "NoSchedule"}
    made.set_overlay(acme, "n1", overlay_of(node("n1", labels={"disk": "ssd", ZONE: "mine"}, taints=[taint])))
    made.set_overlay(acme, "gone", overlay_of(node("gone")))
    assert decide(demand(tenant="acme"), made).node == "n2"
    assert decide(demand(tenant="acme", nodeSelector={"disk": "ssd"}), made).message == (
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint(s)."
    )
    tolerations = [{"key": "mine", "operator": "Exists"}]
    for selector in ({"disk": "ssd"}, {ZONE: "7"}):
        assert decide(demand(tenant="acme", nodeSelector=selector, tolerations=tolerations), made).node == "n1"
    assert decide(demand(tenant="globex", nodeSelector={ZONE: "7"}), made).node == "n1"
    assert not decide(demand(tenant="globex", nodeSelector={"disk": "ssd"}), made).node
    made.set_overlay(globex, "n1", overlay_of(node("n1", unschedulable=True)))
    assert decide(demand(tenant="globex"), made).node == "n2"
    before = made.changes
    for tenant in (acme, globex):
        made.set_overlay(tenant, "n1", None)
    assert made.changes > before and decide(demand(tenant="globex", nodeSelector={ZONE: "7"}), made).node == "n1"


def test_labels_that_a_tenant_does_not_see_are_nothing_to_its_pods() -> None:
    made = cluster(node("n1", labels={"secret": "rack-7", "kubernetes.io/os": "linux"}))
    assert decide(demand("a", "root", nodeSelector={"secret": "rack-7"}), made).node == "n1"
    assert refused(demand("a", "acme", nodeSelector={"secret": "rack-7"}), made).endswith("node affinity/selector.")
    assert decide(demand("a", "acme", nodeSelector={"kubernetes.io/os": "linux"}), made).node == "n1"


def test_of_many_nodes_a_share_is_looked_at() -> None:
    assert [enough(n) for n in (1, 100, 101, 500, 5000, 100000)] == [1, 100, 100, 230, 500, 5000]


def test_the_order_of_nodes_is_turned() -> None:
    state = cluster(*(node(f"n{i:03}") for i in range(300)))
    assert {decide(demand("a"), state, None, start).node < "n150" for start in (0, 150)} == {True, False}
