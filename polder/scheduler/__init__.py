"""Binds pods to nodes, for all tenants and fairly."""
