"""What the host confines containers with beside namespaces: AppArmor, as far as a runtime can use it."""

from __future__ import annotations

from pathlib import Path

ENABLED = Path("/sys/module/apparmor/parameters/enabled")
PARSER = Path("/sbin/apparmor_parser")
"""Loads profiles; a runtime brings its own and cannot without it."""


def has_app_armor(enabled: Path = ENABLED, parser: Path = PARSER) -> bool:
    """Whether the kernel has AppArmor and profiles can be loaded."""
    try:
        return enabled.read_text().startswith("Y") and parser.exists()
    except OSError:
        return False
