"""Probes and hooks of containers: one attempt of each kind, from inside the pod's network, and what many attempts mean.

What a container answers is a tenant's: time, output, redirects and headers are bounded, and a name is looked up only as the
pod itself would.
"""
