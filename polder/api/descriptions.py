"""What ``kubectl explain`` says of the fields of polder.dev's kinds; the types keep to code."""

from __future__ import annotations

from typing import Final

FIELDS: Final[dict[str, dict[str, str]]] = {
    "TenantSpec": {
        "podCidr": "Prefix of the network kube-system/default, the first of podCidrs. Never changes.",
        "podCidrs": "One prefix, or one of each family; the first is the tenant's own family. Never changes.",
        "serviceCidr": "Prefix of the addresses of services, apart from podCidr, the first of serviceCidrs. Never changes.",
        "serviceCidrs": "Prefixes of the addresses of services, of the families of podCidrs in its order. Never changes.",
        "members": "Who may enter the tenant besides its own identities.",
        "quota": "What the tenant as a whole may use.",
    },
    "TenantMember": {
        "kind": "User or Group of the platform, or ServiceAccount.",
        "name": "The name of the user, group or service account.",
        "role": "admin, edit or view, of everything in the tenant.",
        "namespace": "The namespace of a service account.",
        "tenant": "The tenant of a service account; this one when empty.",
        "tenantUid": "The UID of the other tenant, written by the server. Of a later tenant of that name nobody is a member.",
    },
    "TenantQuota": {
        "hard": "Limits over all namespaces: the names of a ResourceQuota, and objects, objects.bytes (each object rounded "
        "up to 1 KiB), namespaces, customresourcedefinitions.",
    },
    "TenantStatus": {
        "phase": "Active, or Terminating while the contents go.",
        "quota": "What of the quota was used when it was last looked at, a few times in a minute.",
    },
    "TenantUsage": {"hard": "The limits that hold.", "used": "What is used of them."},
    "NetworkSpec": {
        "cidr": "Prefix of the pods' addresses, apart from the router's other networks and from the services; the first of "
        "cidrs. Never changes.",
        "cidrs": "One prefix, or one of each family: each pod has an address of each. Never changes.",
        "gateway": "The router's address in the network, on every node; the first of the prefix when empty. "
        "Never changes.",
        "gateways": "One gateway of each family at most; for a family that is left out, the first of its prefix. Never changes.",
        "router": 'default (also when it is left out), or "" for an isolated network without gateway. Never changes.',
        "mtu": "Bytes of the largest packet, 576 to 9000; 0 takes what the nodes can carry.",
    },
    "NetworkStatus": {
        "vni": "The VXLAN network identifier; 0 until one is claimed.",
        "gateway": "The address of the gateway in use.",
        "gateways": "The gateways in use, in the order of spec.cidrs.",
    },
    "SegmentSpec": {
        "vni": "The VXLAN network identifier, 1 to 16777215.",
        "tenant": "Whose network it is.",
        "network": "The network as namespace/name.",
        "networkUid": "The UID of the network.",
    },
    "AddressPoolSpec": {
        "addresses": "Prefixes, ranges (192.0.2.10-192.0.2.20) and single addresses. Of IPv4 prefixes the first and the last "
        "address are left out.",
        "tenants": 'The tenants that may have some, or "*" for all.',
        "loadBalancerClass": "The class of the Services that the pool is for; empty: those without one.",
        "autoAssign": "Whether Services get addresses of the pool that do not ask for it. True when left out.",
        "perTenant": "How many addresses one tenant may have at most; 0 is no bound.",
    },
    "AddressPoolStatus": {
        "capacity": "How many addresses the pool has.",
        "allocated": "How many of them are given away.",
    },
    "ExternalAddressSpec": {
        "address": "The address.",
        "pool": "The pool that it is from.",
        "tenant": "Whose Service it belongs to.",
        "service": "The Service as namespace/name.",
        "serviceUid": "The UID of the Service.",
    },
    "ExternalAddressStatus": {"node": "The node that answers for the address on the uplink; empty while none does."},
    "RouterSpec": {
        "serviceCidr": "Prefix of the addresses of the tenant's services, the first of serviceCidrs.",
        "serviceCidrs": "Prefixes of the addresses of the tenant's services.",
        "furtherServiceCidrs": "Prefixes of the ServiceCIDRs that the tenant made.",
    },
    "PortSpec": {
        "network": "The network as namespace/name, of the same tenant.",
        "node": "Where the pod runs.",
        "pod": "The name of the pod.",
        "podUid": "The UID of the pod.",
        "interface": "The name of the interface in the pod.",
        "addresses": "One address of each of the network's families, without prefix length.",
        "mac": "The MAC address of the interface.",
        "routerOf": "For a router's port of the transit network: the tenant whose router it is.",
        "labels": "The pod's labels, by which policies select it.",
        "containerPorts": "The ports of the pod that have names, by which policies name them.",
    },
    "NamedPort": {
        "name": "The name.",
        "containerPort": "The number.",
        "protocol": "TCP, UDP or SCTP.",
    },
    "PortStatus": {
        "sandbox": "The sandbox that uses the port.",
        "netns": "The path of the pod's network namespace.",
        "link": "The name of the port's link in the router's namespace.",
        "phase": "How far the port is.",
    },
    "AddressSpec": {
        "network": "The network that the address is from.",
        "address": "The address that is claimed.",
        "port": "The port that holds it, as namespace/name.",
        "podUid": "The UID of the pod.",
        "node": "Where the port is.",
    },
}
"""Type, then field as on the wire."""
