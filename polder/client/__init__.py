"""Typed API client, informer cache, multiplexed stream, over HTTPS. Works on any Kubernetes; no component logic."""
