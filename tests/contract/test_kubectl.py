"""Every verb of kubectl that the first Polder promises, with two kubectls twelve releases apart."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import yaml

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {"containers": [{"name": "main", "image": "toolbox:1", "ports": [{"containerPort": 80}]}]},
}
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "1", "b": "2"}}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]},
}
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}


def widgets(columns: list[Any] | None = None, **size: Any) -> dict[str, Any]:
    spec = {"type": "object", "properties": {"size": {"type": "integer", **size}}}
    status = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns or [],
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}},
    }
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }


WIDGET = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


async def test_get_in_every_form(kubectl: Any) -> None:
    await kubectl.apply(POD, SERVICE)
    assert rows(await kubectl("get", "pods"))[0] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert rows(await kubectl("get", "pods"))[1][:4] == ["web", "0/1", "Pending", "0"]
    assert "NODE" in rows(await kubectl("get", "po", "-o", "wide"))[0]
    assert (await kubectl.json("get", "pod", "web"))["spec"]["containers"][0]["image"] == "toolbox:1"
    found = yaml.safe_load(await kubectl("get", "pod/web", "-o", "yaml"))
    assert (found["kind"], found["status"]["phase"]) == ("Pod", "Pending")
    listed = await kubectl.json("get", "pods,services")
    assert [i["kind"] for i in listed["items"]] == ["Pod", "Service", "Service"]
    assert await kubectl("get", "pods", "-o", "name") == "pod/web\n"
    assert await kubectl("get", "pod", "web", "-o", "jsonpath={.metadata.labels.app}") == "web"
    assert rows(await kubectl("get", "pods", "-o", "custom-columns=N:.metadata.name"))[1] == ["web"]
    assert rows(await kubectl("get", "pods", "--show-labels"))[1][-1] == "app=web"
    assert rows(await kubectl("get", "pods", "-L", "app"))[0][-1] == "APP"
    assert (await kubectl.run("get", "pods", "-l", "app!=web")).err.startswith("No resources found")
    assert rows(await kubectl("get", "pods", "-l", "app in (web, x)"))[1][0] == "web"
    assert rows(await kubectl("get", "pods", "--field-selector", "status.phase=Pending"))[1][0] == "web"
    assert rows(await kubectl("get", "pods", "--sort-by", "{.metadata.name}"))[1][0] == "web"
    assert rows(await kubectl("get", "all", "-A"))[0][0] == "NAMESPACE"
    assert rows(await kubectl("get", "cm", "-A", "--chunk-size=2"))[0][:3] == ["NAMESPACE", "NAME", "DATA"]
    assert len(rows(await kubectl("get", "cm", "-A", "--chunk-size=1"))) == 6
    assert 'pods "none" not found' in await kubectl.refused("get", "pod", "none")
    assert "the server doesn't have a resource type" in await kubectl.refused("get", "nonsense")
    assert json.loads(await kubectl("get", "--raw", "/api/v1/namespaces/default/pods"))["kind"] == "PodList"


async def test_watch(kubectl: Any) -> None:
    process = await kubectl.start("get", "configmaps", "-w", "-o", "name")
    try:
        seen = [await asyncio.wait_for(process.stdout.readline(), 20)]
        await kubectl.apply(MAP)
        await kubectl("delete", "cm", "one")
        seen += [await asyncio.wait_for(process.stdout.readline(), 20) for _ in range(2)]
    finally:
        process.terminate()
        await process.communicate()
    assert seen == [b"configmap/kube-root-ca.crt\n", b"configmap/one\n", b"configmap/one\n"]


async def test_watch_as_a_table(kubectl: Any) -> None:
    process = await kubectl.start("get", "pods", "--watch-only")
    try:
        await asyncio.sleep(1)
        await kubectl.apply(POD)
        head = await asyncio.wait_for(process.stdout.readline(), 20)
        row = await asyncio.wait_for(process.stdout.readline(), 20)
    finally:
        process.terminate()
        await process.communicate()
    assert head.split()[:3] == [b"NAME", b"READY", b"STATUS"]
    assert row.split()[:3] == [b"web", b"0/1", b"Pending"]


async def test_describe(kubectl: Any) -> None:
    await kubectl.apply(POD, SERVICE, NODE)
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "web.1", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default", "uid": "", "apiVersion": "v1"},
        "reason": "Tried",
        "message": "it was tried",
        "type": "Warning",
        "source": {"component": "test"},
    }
    event["involvedObject"]["uid"] = (await kubectl.json("get", "pod", "web"))["metadata"]["uid"]  # type: ignore[index]
    await kubectl("create", "-f", "-", stdin=json.dumps(event))
    pod = await kubectl("describe", "pod", "web")
    assert "toolbox:1" in pod and "Tried" in pod and "it was tried" in pod
    assert "app=web" in await kubectl("describe", "service", "web")
    assert "Active" in await kubectl("describe", "ns", "default")
    assert "n1" in await kubectl("describe", "node", "n1")
    assert "10.1.0.0/16" in (await kubectl("describe", "network", "-n", "kube-system", "default")).replace(
        "Cidr", "cidr"
    )
    assert "Tried" in await kubectl("get", "events")


async def test_apply_changes_only_what_it_owns(kubectl: Any) -> None:
    assert await kubectl.apply(MAP) == "configmap/one created\n"
    assert await kubectl.apply(MAP) == "configmap/one unchanged\n"
    await kubectl("patch", "cm", "one", "--type=merge", "-p", '{"data":{"c":"3"}}')
    assert await kubectl.apply({**MAP, "data": {"a": "9"}}) == "configmap/one configured\n"
    assert (await kubectl.json("get", "cm", "one"))["data"] == {"a": "9", "c": "3"}
    changed = {**POD, "spec": {"containers": [{**POD["spec"]["containers"][0], "image": "toolbox:2"}]}}  # type: ignore[index]
    await kubectl.apply(POD)
    assert await kubectl.apply(changed) == "pod/web configured\n"
    assert (await kubectl.json("get", "pod", "web"))["spec"]["containers"][0]["image"] == "toolbox:2"
    assert "(dry run)" in await kubectl("apply", "--dry-run=client", "-f", "-", stdin=json.dumps(MAP))
    gone = await kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps({**MAP, "metadata": {"name": "two"}}))
    assert gone == "configmap/two created (server dry run)\n"
    assert 'configmaps "two" not found' in await kubectl.refused("get", "cm", "two")


async def test_apply_refuses_unknown_fields(kubectl: Any) -> None:
    wrong = {**MAP, "dada": {}}
    assert 'unknown field "dada"' in await kubectl.refused("apply", "-f", "-", stdin=json.dumps(wrong))
    said = await kubectl.refused("apply", "--server-side", "-f", "-", stdin=json.dumps(wrong))
    assert "dada" in said


async def test_create(kubectl: Any) -> None:
    assert await kubectl("create", "-f", "-", stdin=json.dumps(MAP)) == "configmap/one created\n"
    assert "already exists" in await kubectl.refused("create", "-f", "-", stdin=json.dumps(MAP))
    await kubectl("create", "namespace", "blue")
    await kubectl("create", "configmap", "two", "--from-literal=k=v")
    await kubectl("create", "secret", "generic", "s", "--from-literal=k=v")
    await kubectl("create", "serviceaccount", "robot", "-n", "blue")
    await kubectl("create", "service", "clusterip", "quiet", "--clusterip=None", "--tcp=80:8080")
    await kubectl("run", "ran", "--image=toolbox:1", "--restart=Never")
    assert (await kubectl.json("get", "cm", "two"))["data"] == {"k": "v"}
    assert (await kubectl.json("get", "secret", "s"))["data"] == {"k": "dg=="}
    assert (await kubectl.json("get", "service", "quiet"))["spec"]["ports"][0]["targetPort"] == 8080
    assert (await kubectl.json("get", "pod", "ran"))["spec"]["restartPolicy"] == "Never"
    named = {**MAP, "metadata": {"generateName": "made-"}}
    assert (await kubectl("create", "-f", "-", stdin=json.dumps(named))).startswith("configmap/made-")
    made = await kubectl.run("create", "service", "clusterip", "vip", "--tcp=80")
    assert (made.code, made.out) == (0, "service/vip created\n") and made.err == ""
    assert "invalid" in await kubectl.refused("create", "-f", "-", stdin="{ no: [")


async def test_delete(kubectl: Any) -> None:
    await kubectl.apply(MAP, POD)
    assert await kubectl("delete", "cm", "one") == 'configmap "one" deleted\n'
    await kubectl("delete", "pods", "-l", "app=web")
    assert 'pods "web" not found' in await kubectl.refused("delete", "pod", "web")
    await kubectl.apply(MAP, {**MAP, "metadata": {"name": "two"}})
    await kubectl("delete", "-f", "-", stdin=json.dumps(MAP))
    await kubectl("delete", "cm", "two", "--wait=false", "--grace-period=0", "--force")
    assert [i["metadata"]["name"] for i in (await kubectl.json("get", "cm"))["items"]] == ["kube-root-ca.crt"]
    await kubectl("create", "ns", "blue")
    await kubectl("delete", "ns", "blue", "--wait=false")
    assert (await kubectl.json("get", "ns", "blue"))["status"]["phase"] == "Terminating"
    assert "is being terminated" in await kubectl.refused("create", "cm", "late", "-n", "blue")
    assert "forbidden" in await kubectl.refused("delete", "ns", "default")


async def test_edit_patch_label_annotate_replace(kubectl: Any) -> None:
    await kubectl.apply(MAP, POD)
    kubectl.environment["KUBE_EDITOR"] = "sed -i 's/^  a: .1.$/  a: \"7\"/'"
    assert await kubectl("edit", "cm", "one") == "configmap/one edited\n"
    assert (await kubectl.json("get", "cm", "one"))["data"]["a"] == "7"
    await kubectl("patch", "cm", "one", "-p", '{"data":{"b":null}}')
    await kubectl("patch", "cm", "one", "--type=merge", "-p", '{"data":{"m":"1"}}')
    await kubectl("patch", "cm", "one", "--type=json", "-p", '[{"op":"add","path":"/data/j","value":"1"}]')
    assert (await kubectl.json("get", "cm", "one"))["data"] == {"a": "7", "m": "1", "j": "1"}
    image = '{"spec":{"containers":[{"name":"main","image":"toolbox:3"}]}}'
    await kubectl("patch", "pod", "web", "-p", image)
    container = (await kubectl.json("get", "pod", "web"))["spec"]["containers"][0]
    assert (container["image"], container["ports"]) == ("toolbox:3", [{"containerPort": 80, "protocol": "TCP"}])
    assert await kubectl("label", "pod", "web", "tier=front") == "pod/web labeled\n"
    assert "already has a value" in await kubectl.refused("label", "pod", "web", "tier=back")
    await kubectl("label", "pod", "web", "tier=back", "--overwrite")
    await kubectl("label", "pods", "--all", "app-")
    await kubectl("annotate", "pod", "web", "note=x")
    meta = (await kubectl.json("get", "pod", "web"))["metadata"]
    assert meta["labels"] == {"tier": "back"} and meta["annotations"]["note"] == "x"
    await kubectl("replace", "-f", "-", stdin=json.dumps({**MAP, "data": {"only": "this"}}))
    assert (await kubectl.json("get", "cm", "one"))["data"] == {"only": "this"}
    assert "spec" in await kubectl.refused("patch", "pod", "web", "-p", '{"spec":{"nodeName":"x","hostname":"y"}}')


async def test_wait(kubectl: Any, admin: Any) -> None:
    await kubectl.apply(POD, widgets())
    await kubectl("wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=10s")
    waiting = asyncio.create_task(kubectl.run("wait", "--for=condition=Ready", "pod/web", "--timeout=20s"))
    await asyncio.sleep(0.5)
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert (await admin.patch("/api/v1/namespaces/default/pods/web/status", status)).status == 200
    assert (await waiting).out == "pod/web condition met\n"
    leaving = asyncio.create_task(kubectl.run("wait", "--for=delete", "pod/web", "--timeout=20s"))
    await asyncio.sleep(0.5)
    await kubectl("delete", "pod", "web")
    assert (await leaving).code == 0
    assert "timed out" in await kubectl.refused(
        "wait", "--for=condition=Never", "crd/widgets.example.com", "--timeout=1s"
    )


async def test_api_resources_versions_explain(kubectl: Any) -> None:
    await kubectl.apply(widgets())
    found = {(row[0], row[-1]): row for row in rows(await kubectl("api-resources"))}
    assert found["pods", "Pod"][1:] == ["po", "v1", "true", "Pod"]
    assert found["pods", "PodMetrics"][1:] == ["metrics.k8s.io/v1beta1", "true", "PodMetrics"]
    assert found["widgets", "Widget"][1:] == ["wd", "example.com/v1", "true", "Widget"]
    assert found["tenants", "Tenant"][1:] == ["polder.dev/v1alpha1", "false", "Tenant"]
    assert "pods" in await kubectl("api-resources", "--namespaced=true", "--verbs=list,watch", "-o", "name")
    versions = (await kubectl("api-versions")).split()
    assert {"v1", "apiextensions.k8s.io/v1", "polder.dev/v1alpha1", "example.com/v1"} <= set(versions)
    assert "nodeName" in await kubectl("explain", "pod.spec")
    assert "cidr" in await kubectl("explain", "network.spec")
    assert "size" in await kubectl("explain", "widget.spec")
    assert "v1.36.0+polder" in await kubectl("version")
    assert "is running at" in await kubectl("cluster-info")


async def test_custom_resources(kubectl: Any) -> None:
    columns = [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]
    await kubectl.apply(widgets(columns, minimum=1))
    await kubectl.apply(WIDGET)
    assert rows(await kubectl("get", "wd")) == [["NAME", "SIZE"], ["w", "3"]]
    assert "spec.size" in await kubectl.refused("patch", "wd", "w", "--type=merge", "-p", '{"spec":{"size":0}}')
    assert await kubectl.apply({**WIDGET, "spec": {"size": 4}}) == "widget.example.com/w configured\n"
    await kubectl("delete", "crd", "widgets.example.com")
    assert "could not find the requested resource" in await kubectl.refused("get", "wd")


async def test_nodes(kubectl: Any) -> None:
    await kubectl.apply(NODE)
    await kubectl("cordon", "n1")
    assert "SchedulingDisabled" in await kubectl("get", "nodes")
    await kubectl("uncordon", "n1")
    await kubectl("taint", "node", "n1", "k=v:NoSchedule")
    assert (await kubectl.json("get", "node", "n1"))["spec"]["taints"] == [
        {"key": "k", "value": "v", "effect": "NoSchedule"}
    ]


async def test_what_is_not_there_yet_is_refused_clearly(kubectl: Any) -> None:
    await kubectl.apply(POD)
    for command in (["exec", "web", "--", "true"], ["port-forward", "web", "8080:80"], ["attach", "web"]):
        said = await kubectl.refused(*command)
        assert "not supported" in said or "does not have a host assigned" in said or "Pending" in said, (command, said)


async def test_a_tenants_own_kubectl(kubectl: Any, running: Any) -> None:
    """Its credential alone means its tenant; other tenants look the same whether they exist or not."""
    for name in ("acme", "globex"):
        await kubectl.apply({"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}})
    mine = replace(kubectl, kubeconfig=running.kubeconfig(await running.tenant_leaf("acme")))
    await mine.apply(POD, widgets())
    other = replace(kubectl, kubeconfig=running.kubeconfig(running.admin_leaf(), "globex"))
    assert "No resources found" in (await other.run("get", "pods")).err
    assert rows(await mine("get", "pods"))[1][0] == "web"
    assert "widgets" in await mine("api-resources") and "widgets" not in await other("api-resources")
    assert "tenants" not in await mine("api-resources")
    said = []
    for name in ("globex", "nobody"):
        foreign = replace(mine, kubeconfig=running.kubeconfig(await running.tenant_leaf("acme"), name))
        said.append((await foreign.refused("get", "--raw", f"/tenants/{name}/api/v1/pods")).replace(name, "X"))
    assert said[0] == said[1]
    assert 'User "root" cannot list' in await mine.refused("get", "pods", "--as", "root")  # who has no rights there
    assert "orbidden" in await mine.refused("delete", "router", "default", "-n", "kube-system")
