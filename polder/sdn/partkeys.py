"""The names that a fragment has for the compiler, and for those who render its part."""

from __future__ import annotations

from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.sdn.compile.concerns import DECLARATIONS
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.render.linux.desired import PartKey

KIND_OF = {concern: declaration.part.__name__ for concern, declaration in DECLARATIONS.items()}
CONCERN_OF = {kind: concern for concern, kind in KIND_OF.items()}


def part_key(key: Key) -> PartKey:
    """The part that a fragment gives."""
    ref = key.ref
    if key.concern is Concern.NODE:
        return PartKey(KIND_OF[key.concern], "", ref.name)
    return PartKey(KIND_OF[key.concern], ref.tenant, f"{ref.namespace}/{ref.name}")


def compile_key(key: PartKey) -> Key:
    """The fragment that gives a part."""
    namespace, _, name = key.name.rpartition("/")
    return Key(CONCERN_OF[key.kind], Ref(TenantName(key.tenant or ROOT), namespace, name))
