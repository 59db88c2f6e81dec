"""What of the platform's nodes tenants see, beside what they put on them themselves."""

from __future__ import annotations

from typing import Final

NODE_LABELS: Final[tuple[str, ...]] = ("kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch")
"""Labels of a node that every tenant sees."""
