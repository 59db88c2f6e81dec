"""ExternalAddresses to what a node answers for on its uplink.

The claim in root decides, which only Polder writes: what a Service says of its addresses is a tenant's to write, and opens
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from polder.api.addresses import ExternalAddress
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.sdn.compile.concern import Declaration, Home, View
from polder.sdn.compile.errors import CompileError
from polder.sdn.compile.keys import Concern
from polder.sdn.compile.outside import can_answer, canonical
from polder.sdn.topology.vips import Outside


def _given(ref: Ref, claim: ExternalAddress) -> Iterable[Ref]:
    """The fragment is the tenant's, though the object is root's."""
    namespace = claim.spec.service.partition("/")[0]
    return (Ref(TenantName(claim.spec.tenant), namespace, ref.name),)


def _outside(ref: Ref, view: View) -> Outside | None:
    claim = view.get(ExternalAddress, Ref(ROOT, "", ref.name))
    if claim is None or claim.metadata.deletion_timestamp is not None:
        return None
    address = canonical(claim.spec.address)
    if not address or not can_answer(address):
        raise CompileError(
            f"ExternalAddress {ref.name}: spec.address {claim.spec.address!r} can be nobody's on the outside"
        )
    return Outside(ref.tenant, f"{ref.namespace}/{ref.name}", address, claim.spec.service, claim.status.node)


OUTSIDE = Declaration(Concern.OUTSIDE, Outside, (Home(ExternalAddress, _given),), _outside)
