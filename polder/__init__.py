"""Polder: a multi-tenant Kubernetes. Packages import one way, see .importlinter and docs/architecture.md."""
