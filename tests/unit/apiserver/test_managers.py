"""What of managedFields the server itself decides: after admission, and for equal objects."""

from __future__ import annotations

from typing import Any

from polder.api.kinds import built_in
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.catalog import Resource
from polder.apiserver.managers import check_admitted, settle_times
from polder.apiserver.options import manager_of_agent
from polder.apiserver.types import Identity, Role
from polder.base.ids import ROOT

ENTRY = {
    "manager": "m", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
    "fieldsV1": {"f:data": {}},
}  # fmt: skip


def context(entries: Any) -> AdmissionContext:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "managedFields": entries}}
    who = Identity("u", Role.PLATFORM_ADMIN)
    return AdmissionContext(who, ROOT, "create", Resource(built_in("v1", "configmaps")), "d", "x", obj=obj)


def test_admission_cannot_break_managed_fields() -> None:
    broken = context([{**ENTRY, "operation": "Else"}])
    check_admitted(broken, [ENTRY])
    assert broken.obj is not None and broken.obj["metadata"]["managedFields"] == [ENTRY]
    assert "invalid state after admission" in broken.warnings[0]
    changed = [{**ENTRY, "manager": "webhook"}]
    sound = context(changed)
    check_admitted(sound, [ENTRY])
    assert sound.obj is not None and sound.obj["metadata"]["managedFields"] == changed and not sound.warnings


def test_a_later_time_alone_changes_nothing() -> None:
    old = {"metadata": {"managedFields": [ENTRY]}}
    new = {"metadata": {"managedFields": [{**ENTRY, "time": "2026-01-02T00:00:00Z"}]}}
    settle_times(new, old)
    assert new["metadata"]["managedFields"] == [ENTRY]
    more = {**ENTRY, "time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:data": {}, "f:immutable": {}}}
    other = {"metadata": {"managedFields": [more]}}
    settle_times(other, old)
    assert other["metadata"]["managedFields"] == [more]


def test_a_manager_is_named_by_its_agent() -> None:
    assert manager_of_agent("kubectl/v1.36.0 (linux/amd64)") == "kubectl"
    assert manager_of_agent("") == "" and manager_of_agent("a\tb/c") == "ab"
    assert len(manager_of_agent("ü" * 200).encode()) <= 128
