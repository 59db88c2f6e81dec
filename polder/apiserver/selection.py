"""What of a collection a request means: label and field selectors, and for a node its share."""

from __future__ import annotations

from dataclasses import dataclass

from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.selectors import FieldMatcher, FieldRequirement, LabelMatcher, parse_fields, parse_labels
from polder.apiserver.catalog import Resource
from polder.apiserver.hooks import Call, Share
from polder.apiserver.types import Role
from polder.base.ids import EVERY_TENANT, TenantName
from polder.store.protocol import Prefix


@dataclass(frozen=True, slots=True)
class Selection:
    """Decides about raw objects as the view shows them."""

    kind: Kind
    labels: LabelMatcher
    fields: FieldMatcher
    share: Share | None = None
    node: str = ""

    @property
    def is_everything(self) -> bool:
        """Whether it selects all objects, so that none needs to be parsed."""
        return not self.labels and not self.fields and self.share is None

    def matches(self, obj: Raw) -> bool:
        """Whether an object is selected."""
        if not (self.labels.matches(obj) and self.fields.matches(obj)):
            return False
        return self.share is None or self.share.visible(self.node, self.kind, obj)


def selection_of(call: Call, resource: Resource, share: Share | None) -> Selection:
    """The selectors of a request. Raises ApiError 400."""
    labels = parse_labels(call.query.get("labelSelector", ""))
    fields = parse_fields(
        resource.kind,
        call.query.get("fieldSelector", ""),
        None if resource.custom is None else resource.custom.selectable,
    )
    if call.info.name:  # the older form of a watch, of one object by its path
        fields = FieldMatcher((*fields.requirements, FieldRequirement("metadata.name", call.info.name)))
    if call.who.role is Role.NODE and call.info.tenant == EVERY_TENANT and share is not None:
        return Selection(resource.kind, labels, fields, share, call.who.node)
    return Selection(resource.kind, labels, fields)


def prefix_of(resource: Resource, tenant: TenantName, namespace: str) -> Prefix:
    """The store's range of a collection."""
    wanted = None if tenant == EVERY_TENANT else str(tenant)
    return Prefix(resource.kind.resource, wanted, namespace or None if resource.kind.namespaced else None)
