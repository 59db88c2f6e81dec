"""What the demo runs: for both tenants the same names, the same CIDR and the same addresses."""

from __future__ import annotations

from dataclasses import dataclass

from polder.api.core import Pod
from polder.api.meta import ObjectMeta, Raw
from polder.api.podspec import Container, EnvVar, PodSpec, VolumeMount
from polder.api.podvolumes import EmptyDir, Volume
from polder.api.polder import ADDRESS_ANNOTATION, Tenant, TenantSpec
from polder.base.ids import TenantName

TENANTS = (TenantName("acme"), TenantName("globex"))
CIDR = "10.0.0.0/16"
IMAGE = "toolbox"
NAMES = frozenset({"web", "client", *(f"only-{name}" for name in TENANTS)})
"""Every pod of the demo, in whichever tenant."""
SERVE = 'echo "$WHO" > /www/index.html && exec httpd -f -p 80 -h /www'

SERVICES = "/api/v1/namespaces/default/services"
SERVICE = "shop"
SERVICE_ADDRESS = "10.96.0.80"
"""The same in both tenants."""
WEB_SERVICE: Raw = {
    "metadata": {"name": SERVICE},
    "spec": {"clusterIP": SERVICE_ADDRESS, "selector": {"app": "web"}, "ports": [{"port": 80}]},
}

BINDINGS = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
PODS_SEE_PODS: Raw = {
    "metadata": {"name": "demo"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
    "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
}
"""Without it a pod's account may nothing: like every Kubernetes."""


@dataclass(frozen=True, slots=True)
class Place:
    """One pod of the demo: who it is and where it stands."""

    tenant: TenantName
    name: str
    address: str
    node: str

    def __str__(self) -> str:
        """As the pod's own web server answers."""
        return f"{self.tenant}/{self.name}"


def places(nodes: list[str]) -> list[Place]:
    """``web`` on the first node and ``client`` on the last, at equal addresses in both tenants; and in each tenant a pod
    at an address that the other has not, so that crossing over could be seen.
    """
    first, last = nodes[0], nodes[-1]
    found = []
    for number, tenant in enumerate(TENANTS, 1):
        found.append(Place(tenant, "web", "10.0.0.10", first))
        found.append(Place(tenant, "client", "10.0.0.20", last))
        found.append(Place(tenant, f"only-{tenant}", f"10.0.{number}.1", first))
    return found


def tenant(name: TenantName) -> Tenant:
    """A tenant with the demo's CIDR."""
    return Tenant(
        api_version="polder.dev/v1alpha1",
        kind="Tenant",
        metadata=ObjectMeta(name=name),
        spec=TenantSpec(pod_cidr=CIDR),
    )


def pod(place: Place) -> Pod:
    """A web server that says who it is."""
    return Pod(
        api_version="v1",
        kind="Pod",
        metadata=ObjectMeta(
            name=place.name,
            namespace="default",
            labels={"app": place.name},
            annotations={ADDRESS_ANNOTATION: place.address},
        ),
        spec=PodSpec(
            node_selector={"kubernetes.io/hostname": place.node},
            termination_grace_period_seconds=1,
            containers=[
                Container(
                    name="main",
                    image=IMAGE,
                    image_pull_policy="IfNotPresent",
                    command=["sh", "-c", SERVE],
                    env=[EnvVar(name="WHO", value=str(place))],
                    volume_mounts=[VolumeMount(name="www", mount_path="/www")],
                )
            ],
            volumes=[Volume(name="www", empty_dir=EmptyDir())],
        ),
    )
