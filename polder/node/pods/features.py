"""What this node's kernel and runtime have that pods may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Features:
    """``strict_groups``: the runtime leaves out the groups that an image adds to a user (supplementalGroupsPolicy Strict).
    ``sysctls``: kernel parameters beyond the safe ones that pods may set here, by name or with ``*`` at the end.
    """

    selinux: bool = False
    app_armor: bool = False
    strict_groups: bool = False
    sysctls: tuple[str, ...] = ()


NOTHING = Features()
