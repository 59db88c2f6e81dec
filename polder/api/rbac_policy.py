"""The roles and bindings that every tenant has from its first moment, as release 1.36 of Kubernetes names and fills them.

A table of facts: a role begins a line (``namespace/name``; ``> x`` marks it as part of the aggregated role x, ``= x`` gathers
what is marked so), its rules follow indented: verbs, groups, resources, ``@`` and names; deeper lines go on. What upstream
has for its controllers' own service accounts is left out: no controller of Polder is one. ``system:polder:`` are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from polder.api.meta import Raw

GROUP: Final = "rbac.authorization.k8s.io"
API_VERSION: Final = f"{GROUP}/v1"
MARK: Final = "rbac.authorization.k8s.io/aggregate-to-"
_WORDS: Final = {
    "read": ("get", "list", "watch"),
    "write": ("create", "delete", "deletecollection", "patch", "update"),
    "emit": ("create", "patch", "update"),
}
_ROLES: Final = """\
admin = admin
cluster-admin
  * * *
  * urls *
edit > admin = edit
system:aggregate-to-admin > admin
  create authorization.k8s.io localsubjectaccessreviews
  read,write rbac.authorization.k8s.io rolebindings roles
system:aggregate-to-edit > edit
  read core pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy
  impersonate core serviceaccounts
  write core pods pods/attach pods/exec pods/portforward pods/proxy
  create core pods/eviction
  write core configmaps persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets
    serviceaccounts services services/proxy
  create core serviceaccounts/token
  write core|events.k8s.io events
  write apps daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale
    statefulsets statefulsets/scale
  write autoscaling horizontalpodautoscalers
  write batch cronjobs jobs
  write extensions daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies
    replicasets replicasets/scale replicationcontrollers/scale
  write policy poddisruptionbudgets
  write networking.k8s.io ingresses networkpolicies
  read,write coordination.k8s.io leases
  write resource.k8s.io resourceclaims resourceclaimtemplates
system:aggregate-to-view > view
  read core configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods
    replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status
  read core bindings limitranges namespaces/status pods/log pods/status replicationcontrollers/status
    resourcequotas resourcequotas/status
  read core namespaces
  read core|events.k8s.io events
  read discovery.k8s.io endpointslices
  read apps controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status
    replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status
  read autoscaling horizontalpodautoscalers horizontalpodautoscalers/status
  read batch cronjobs cronjobs/status jobs jobs/status
  read extensions daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses
    ingresses/status networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale
  read policy poddisruptionbudgets poddisruptionbudgets/status
  read networking.k8s.io ingresses ingresses/status networkpolicies
  read resource.k8s.io resourceclaims resourceclaims/status resourceclaimtemplates
system:aggregated-metrics-reader > admin > edit > view
  read metrics.k8s.io nodes pods
system:auth-delegator
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io subjectaccessreviews
system:basic-user
  create authorization.k8s.io selfsubjectaccessreviews selfsubjectrulesreviews
  create authentication.k8s.io selfsubjectreviews
system:certificates.k8s.io:certificatesigningrequests:nodeclient
  create certificates.k8s.io certificatesigningrequests/nodeclient
system:certificates.k8s.io:certificatesigningrequests:selfnodeclient
  create certificates.k8s.io certificatesigningrequests/selfnodeclient
system:certificates.k8s.io:kube-apiserver-client-approver
  approve certificates.k8s.io signers @ kubernetes.io/kube-apiserver-client
system:certificates.k8s.io:kube-apiserver-client-kubelet-approver
  approve certificates.k8s.io signers @ kubernetes.io/kube-apiserver-client-kubelet
system:certificates.k8s.io:kubelet-serving-approver
  approve certificates.k8s.io signers @ kubernetes.io/kubelet-serving
system:certificates.k8s.io:legacy-unknown-approver
  approve certificates.k8s.io signers @ kubernetes.io/legacy-unknown
system:discovery
  get urls /api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/
system:heapster
  read core events namespaces nodes pods
  read extensions deployments
system:kube-aggregator
  read core endpoints services
system:kube-controller-manager
  emit core|events.k8s.io events
  create coordination.k8s.io leases
  get,update coordination.k8s.io leases @ kube-controller-manager
  create core secrets serviceaccounts
  delete core secrets
  get core configmaps namespaces secrets serviceaccounts
  update core secrets serviceaccounts
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io subjectaccessreviews
  list,watch * *
  create core serviceaccounts/token
system:kube-dns
  list,watch core endpoints services
system:kube-scheduler
  emit core|events.k8s.io events
  create coordination.k8s.io leases
  read,update coordination.k8s.io leases @ kube-scheduler
  read,write coordination.k8s.io leasecandidates
  read core nodes
  read,delete core pods
  create core bindings pods/binding
  patch,update core pods/status
  read core replicationcontrollers services
  read apps|extensions replicasets
  read apps statefulsets
  read policy poddisruptionbudgets
  read core persistentvolumeclaims persistentvolumes
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io subjectaccessreviews
  read storage.k8s.io csinodes
  read storage.k8s.io volumeattachments
  read core namespaces
  read storage.k8s.io csidrivers
  read storage.k8s.io csistoragecapacities
  read resource.k8s.io deviceclasses
  read,patch,update resource.k8s.io resourceclaims
  read,patch,update resource.k8s.io resourceclaims/status
  update core pods/finalizers
  read resource.k8s.io resourceslices
  create,delete resource.k8s.io resourceclaims
  patch,update resource.k8s.io resourceclaims/binding
system:kubelet-api-admin
  read core nodes
  proxy core nodes
  * core nodes/log nodes/metrics nodes/proxy nodes/stats
  * core nodes/configz nodes/healthz nodes/pods
system:monitoring
  get urls /flagz /healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/* /statusz
  get core nodes/metrics
system:node
  create authentication.k8s.io tokenreviews
  create authorization.k8s.io localsubjectaccessreviews subjectaccessreviews
  read core services
  read,create core nodes
  patch,update core nodes/status
  patch,update core nodes
  emit core|events.k8s.io events
  read core pods
  create,delete core pods
  patch,update core pods/status
  create core pods/eviction
  read core configmaps secrets
  get core persistentvolumeclaims persistentvolumes
  get core endpoints
  read,create certificates.k8s.io certificatesigningrequests
  create,delete,get,patch,update coordination.k8s.io leases
  get storage.k8s.io volumeattachments
  create core serviceaccounts/token
  get,patch,update core persistentvolumeclaims/status
  read storage.k8s.io csidrivers
  create,delete,get,patch,update storage.k8s.io csinodes
  read node.k8s.io runtimeclasses
  get resource.k8s.io resourceclaims
  deletecollection resource.k8s.io resourceslices
  get core serviceaccounts
system:node-bootstrapper
  read,create certificates.k8s.io certificatesigningrequests
system:node-problem-detector
  get core nodes
  patch core nodes/status
  emit core|events.k8s.io events
system:node-proxier
  list,watch core endpoints services
  read core nodes
  emit core|events.k8s.io events
  list,watch networking.k8s.io servicecidrs
  list,watch discovery.k8s.io endpointslices
system:persistent-volume-provisioner
  read,create,delete core persistentvolumes
  read,update core persistentvolumeclaims
  read storage.k8s.io storageclasses
  watch core events
  emit core|events.k8s.io events
system:public-info-viewer
  get urls /healthz /livez /readyz /version /version/
system:service-account-issuer-discovery
  get urls /.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/
system:volume-scheduler
  read,patch,update core persistentvolumes
  read storage.k8s.io storageclasses
  read,patch,update core persistentvolumeclaims
view > edit = view
system:polder:aggregate-to-edit > edit
  write polder.dev networks
system:polder:aggregate-to-view > view
  read polder.dev addresses networks ports routers
kube-public/system:controller:bootstrap-signer
  read core configmaps
  update core configmaps @ cluster-info
  emit core|events.k8s.io events
kube-system/extension-apiserver-authentication-reader
  read core configmaps @ extension-apiserver-authentication
kube-system/system::leader-locking-kube-controller-manager
  read,create,update coordination.k8s.io leases
  read,create,update coordination.k8s.io leasecandidates
kube-system/system::leader-locking-kube-scheduler
  read,create,update coordination.k8s.io leases
  read,create,update coordination.k8s.io leasecandidates
kube-system/system:controller:bootstrap-signer
  read core secrets
kube-system/system:controller:cloud-provider
  read,create core configmaps
kube-system/system:controller:token-cleaner
  read,delete core secrets
  emit core|events.k8s.io events"""
_BINDINGS: Final = """\
cluster-admin Group system:masters
system:basic-user Group system:authenticated
system:discovery Group system:authenticated
system:kube-controller-manager User system:kube-controller-manager
system:kube-dns ServiceAccount kube-system/kube-dns
system:kube-scheduler User system:kube-scheduler
system:monitoring Group system:monitoring
system:node
system:node-proxier User system:kube-proxy
system:public-info-viewer Group system:authenticated Group system:unauthenticated
system:service-account-issuer-discovery Group system:serviceaccounts
system:volume-scheduler User system:kube-scheduler
kube-public/system:controller:bootstrap-signer ServiceAccount kube-system/bootstrap-signer
kube-system/system:controller:bootstrap-signer ServiceAccount kube-system/bootstrap-signer
kube-system/system:controller:cloud-provider ServiceAccount kube-system/cloud-provider
kube-system/system:controller:token-cleaner ServiceAccount kube-system/token-cleaner
kube-system/system::leader-locking-kube-controller-manager User system:kube-controller-manager\
 ServiceAccount kube-system/kube-controller-manager ServiceAccount kube-system/leader-election-controller
kube-system/system::leader-locking-kube-scheduler User system:kube-scheduler ServiceAccount kube-system/kube-scheduler
kube-system/extension-apiserver-authentication-reader User system:kube-controller-manager User system:kube-scheduler
"""
_NAMED: Final = {"extension-apiserver-authentication-reader": "system::extension-apiserver-authentication-reader"}
"""Bindings that are not named as their role."""


def _verbs(text: str) -> list[str]:
    return sorted({verb for word in text.split(",") for verb in _WORDS.get(word, (word,))})


def _rule(text: str) -> Raw:
    verbs, where, *rest = text.split()
    if where == "urls":
        return {"verbs": _verbs(verbs), "nonResourceURLs": rest}
    groups = ["" if group == "core" else group for group in where.split("|")]
    cut = rest.index("@") if "@" in rest else len(rest)
    rule: Raw = {"verbs": _verbs(verbs), "apiGroups": groups, "resources": rest[:cut]}
    if rest[cut + 1 :]:
        rule["resourceNames"] = rest[cut + 1 :]
    return rule


def _object(kind: str, place: str, body: Raw, marks: Iterable[str] = ()) -> Raw:
    namespace, _, name = place.rpartition("/")
    meta: Raw = {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults", **{f"{MARK}{mark}": "true" for mark in marks}},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    }
    if namespace:
        meta["namespace"] = namespace
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": meta, **body}


def _paragraphs() -> Iterator[tuple[str, list[str]]]:
    """Each role's first line and its rules, continued lines joined."""
    head, rules = "", list[str]()
    for line in _ROLES.splitlines():
        if not line.startswith(" "):
            if head:
                yield head, rules
            head, rules = line, []
        elif line.startswith("    "):
            rules[-1] += " " + line.strip()
        else:
            rules.append(line)
    yield head, rules


@lru_cache(maxsize=1)
def bootstrap_roles() -> tuple[Raw, ...]:
    """The ClusterRoles and Roles, without UIDs and times. Read only: they are shared."""
    found = []
    for head, rules in _paragraphs():
        place, *words = head.split()
        marks = [mark for sign, mark in zip(words[::2], words[1::2], strict=True) if sign == ">"]
        gathers = [mark for sign, mark in zip(words[::2], words[1::2], strict=True) if sign == "="]
        body: Raw = {"rules": [_rule(rule) for rule in rules]}
        if gathers:
            body["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {f"{MARK}{gathers[0]}": "true"}}]}
        found.append(_object("Role" if "/" in place else "ClusterRole", place, body, marks))
    return tuple(found)


@lru_cache(maxsize=1)
def bootstrap_bindings() -> tuple[Raw, ...]:
    """The ClusterRoleBindings and RoleBindings, likewise."""
    found = []
    for line in _BINDINGS.splitlines():
        place, *words = line.split()
        namespace, slash, role = place.rpartition("/")
        kind = "Role" if slash else "ClusterRole"
        body: Raw = {"roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}}
        if words:
            body["subjects"] = [_subject(*pair) for pair in zip(words[::2], words[1::2], strict=True)]
        found.append(_object(f"{kind}Binding", f"{namespace}{slash}{_NAMED.get(role, role)}", body))
    return tuple(found)


def _subject(kind: str, name: str) -> Raw:
    if kind == "ServiceAccount":
        namespace, _, account = name.partition("/")
        return {"kind": kind, "name": account, "namespace": namespace}
    return {"apiGroup": GROUP, "kind": kind, "name": name}
