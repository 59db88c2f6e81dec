from polder.api.core import Taint
from polder.api.nodeaffinity import tolerates
from polder.api.podspec import Container, ContainerPort, Toleration
from polder.base.ids import TenantName
from polder.scheduler.cluster import overlay_of
from polder.scheduler.core import decide
from tests.unit.scheduler.make import cluster, container, demand, node


def refused(wanted, *nodes):
    decision = decide(wanted, cluster(*nodes))
    assert not decision.node, decision
    return decision.message


def test_no_nodes():
    assert refused(demand()) == "no nodes available to schedule pods"


def test_reasons_are_counted_and_worded_as_upstream():
    big = demand("web", "acme", container("a", cpu="5", memory="9Gi"))
    nodes = (node("one"), node("two"), node("three", unschedulable=True))
    assert refused(big, *nodes) == (
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu, 2 Insufficient memory."
    )


def test_what_is_placed_counts_and_what_ends_does_not():
    state = cluster(node("one"))
    state.place(demand("first", "globex", container("a", cpu="3")), "one", assumed=True)
    wanted = demand("web", "acme", container("a", cpu="2"))
    assert decide(wanted, state).message == "0/1 nodes are available: 1 Insufficient cpu."
    state.free_pod("globex-first")
    assert decide(wanted, state).node == "one"


def test_an_exact_fit_fits():
    assert decide(demand("web", "acme", container("a", cpu="4", memory="8Gi")), cluster(node("one"))).node == "one"


def test_the_number_of_pods_is_a_resource():
    state = cluster(node("one", allocatable={"pods": "1"}))
    state.place(demand("first"), "one", assumed=False)
    assert decide(demand("second"), state).message == "0/1 nodes are available: 1 Too many pods."


def test_a_resource_that_no_node_has():
    wanted = demand("web", "acme", container("a", **{"acme.dev/gpu": "1"}))
    assert refused(wanted, node("one")) == "0/1 nodes are available: 1 Insufficient acme.dev/gpu."


def test_selector_and_affinity():
    disk = node("one", labels={"disk": "fast", "zone": "7"})
    assert decide(demand(node_selector={"disk": "fast"}), cluster(node("two"), disk)).node == "one"
    message = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    assert refused(demand(node_selector={"disk": "slow"}), disk) == message

    def affinity(**requirement):
        terms = {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}
        return demand(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})

    assert decide(affinity(key="zone", operator="Gt", values=["6"]), cluster(disk)).node == "one"
    assert refused(affinity(key="zone", operator="Lt", values=["6"]), disk) == message
    assert refused(affinity(key="disk", operator="NotIn", values=["fast"]), disk) == message
    assert decide(affinity(key="absent", operator="DoesNotExist"), cluster(disk)).node == "one"


def test_only_ready_nodes_and_root_may_say_otherwise():
    late = node("one", ready="Unknown")
    assert refused(demand(), late) == "0/1 nodes are available: 1 node(s) were not ready."
    everything = [Toleration(operator="Exists")]
    assert refused(demand(tolerations=everything), late).endswith("were not ready.")
    assert decide(demand("agent", "root", tolerations=everything), cluster(late)).node == "one"


def test_taints_of_the_platform_are_not_told_to_tenants():
    taints = [Taint(key="reserved-for", value="globex", effect="NoSchedule")]
    message = refused(demand(), node("one", taints=taints))
    assert message == "0/1 nodes are available: 1 node(s) had untolerated taint(s)."
    assert "{reserved-for: globex}" in refused(demand("web", "root"), node("one", taints=taints))
    silent = [Taint(key="node.kubernetes.io/unreachable", effect="NoSchedule")]
    assert "{node.kubernetes.io/unreachable: }" in refused(demand(), node("one", taints=silent))
    own = [Toleration(key="reserved-for", value="globex", effect="NoSchedule")]
    assert decide(demand(tolerations=own), cluster(node("one", taints=taints))).node == "one"


def test_tolerations():
    taint = Taint(key="a", value="x", effect="NoSchedule")
    assert tolerates((Toleration(operator="Exists"),), taint)
    assert tolerates((Toleration(key="a", operator="Exists"),), taint)
    assert tolerates((Toleration(key="a", value="x"),), taint)
    assert not tolerates((Toleration(key="a", value="y"),), taint)
    assert not tolerates((Toleration(key="b", operator="Exists"),), taint)
    assert not tolerates((Toleration(key="a", value="x", effect="NoExecute"),), taint)
    assert not tolerates((Toleration(),), taint)


def test_a_taint_that_prefers_is_a_preference():
    shy = node("one", taints=[Taint(key="a", effect="PreferNoSchedule")])
    assert decide(demand(), cluster(shy, node("two"))).node == "two"
    assert decide(demand(), cluster(shy)).node == "one"


def test_host_ports_are_exclusive_on_a_node():
    wanted = [
        demand(n, "root", Container(name="a", ports=[ContainerPort(container_port=1, host_port=80)])) for n in "ab"
    ]
    state = cluster(node("one"))
    state.place(wanted[0], "one", assumed=True)
    assert "didn't have free ports" in decide(wanted[1], state).message


def test_the_emptier_node_wins():
    state = cluster(node("one"), node("two"))
    state.place(demand("other", "globex", container("a", cpu="2")), "one", assumed=False)
    assert decide(demand(), state).node == "two"


def test_pods_of_a_group_spread_over_equal_nodes():
    state = cluster(*(node(f"n{i}") for i in range(4)))
    used = []
    for number in range(8):
        wanted = demand(f"web-{number}")
        chosen = decide(wanted, state).node
        state.place(wanted, chosen, assumed=True)
        used.append(chosen)
    assert {n: used.count(n) for n in used} == {f"n{i}": 2 for i in range(4)}


def test_an_assumption_is_forgotten_but_a_fact_is_not():
    state = cluster(node("one"))
    state.place(demand("a"), "one", assumed=True)
    state.place(demand("b"), "one", assumed=False)
    for uid in ("acme-a", "acme-b"):
        state.forget(uid)
    assert state.placement("acme-a") is None
    assert state.placement("acme-b") is not None
    assert state.usage("one").pods == 1


def test_pods_may_be_seen_before_their_node():
    state = cluster()
    state.place(demand("a", "acme", container("x", cpu="3")), "one", assumed=False)
    from polder.scheduler.cluster import facts_of

    state.set_node(facts_of(node("one")))
    assert decide(demand("b", "acme", container("x", cpu="2")), state).node == ""
    state.remove_node("one")
    state.remove_pod("acme-a")
    assert len(state) == 0


def test_what_a_tenant_put_on_a_node_counts_for_its_own_pods() -> None:
    acme, globex = TenantName("acme"), TenantName("globex")
    made = cluster(node("n1", labels={"rack": "7"}), node("n2"))
    taint = Taint(key="mine", value="x", effect="NoSchedule")
    made.set_overlay(acme, "n1", overlay_of(node("n1", labels={"disk": "ssd", "rack": "mine"}, taints=[taint])))
    made.set_overlay(acme, "gone", overlay_of(node("gone")))
    assert decide(demand(tenant="acme"), made).node == "n2"
    assert decide(demand(tenant="acme", node_selector={"disk": "ssd"}), made).message == (
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint {mine: x}."
    )
    tolerations = [Toleration(key="mine", operator="Exists")]
    for selector in ({"disk": "ssd"}, {"rack": "mine"}):
        assert decide(demand(tenant="acme", node_selector=selector, tolerations=tolerations), made).node == "n1"
    assert decide(demand(tenant="globex", node_selector={"rack": "7"}), made).node == "n1"
    assert not decide(demand(tenant="globex", node_selector={"disk": "ssd"}), made).node
    made.set_overlay(globex, "n1", overlay_of(node("n1", unschedulable=True)))
    assert decide(demand(tenant="globex"), made).node == "n2"
    before = made.changes
    for tenant in (acme, globex):
        made.set_overlay(tenant, "n1", None)
    assert made.changes > before and decide(demand(tenant="globex", node_selector={"rack": "7"}), made).node == "n1"
