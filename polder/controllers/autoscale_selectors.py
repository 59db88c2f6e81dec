"""Which autoscalers size the same pods: two of them would pull a size to and fro."""

from __future__ import annotations

from collections.abc import Iterable

from polder.api.meta import Object
from polder.api.selectors import LabelMatcher
from polder.base.ref import Ref


class Selectors:
    """The selectors that autoscalers were last seen with: one for each, until it is gone."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, LabelMatcher]] = {}

    def forget(self, ref: Ref) -> None:
        """The autoscaler is gone."""
        beside = self._known.get((ref.tenant, ref.namespace))
        if beside is not None:
            beside.pop(ref.name, None)
            if not beside:
                del self._known[ref.tenant, ref.namespace]

    def sharing(self, ref: Ref, matcher: LabelMatcher, pods: Iterable[Object]) -> list[Ref]:
        """Other autoscalers of the namespace that select one of the pods. Notes this one's selector."""
        beside = self._known.setdefault((ref.tenant, ref.namespace), {})
        beside[ref.name] = matcher
        others = [(name, other) for name, other in beside.items() if name != ref.name]
        if not others:
            return []
        labels = [pod.metadata.labels or {} for pod in pods]
        found = (name for name, other in others if any(other.matches_labels(one) for one in labels))
        return [Ref(ref.tenant, ref.namespace, name) for name in sorted(found)]
