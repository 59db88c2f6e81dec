"""Typed API client, informer cache and the multiplexed stream, over HTTPS. Works on any Kubernetes; no component logic."""
