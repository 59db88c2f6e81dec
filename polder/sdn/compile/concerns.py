"""All concerns. A new one: its file, its Concern, a line here, and its part in topology/types.py and topology/text.py."""

from __future__ import annotations

from polder.sdn.compile import announced, basics, hosted, policies, vips
from polder.sdn.compile.concern import Declaration
from polder.sdn.compile.keys import Concern

DECLARATIONS: dict[Concern, Declaration] = {
    declaration.concern: declaration
    for declaration in (
        basics.NODE,
        basics.ROUTER,
        basics.NETWORK,
        basics.PORT,
        vips.VIP,
        announced.OUTSIDE,
        hosted.HOSTED,
        policies.POLICY,
        policies.GROUP,
    )
}
