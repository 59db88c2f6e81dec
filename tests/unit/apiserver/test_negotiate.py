from __future__ import annotations

import pytest

from polder.api.errors import ApiError
from polder.apiserver.negotiate import PROTOBUF, YAML, Accepted, Form, accepted

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
OLD = "application/json;as=Table;v=v1beta1;g=meta.k8s.io"
META = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", Accepted()),
        ("*/*", Accepted()),
        ("application/json", Accepted()),
        ("application/json;stream=watch", Accepted()),
        (f"{TABLE},{OLD},application/json", Accepted(Form.TABLE)),
        (f"{OLD},application/json", Accepted(Form.TABLE, "v1beta1")),
        (META, Accepted(Form.METADATA)),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Accepted()),
        ("application/vnd.kubernetes.protobuf,application/json", Accepted()),
        ("application/vnd.kubernetes.protobuf", Accepted(media=PROTOBUF)),
        (f"application/json;q=0.5,{TABLE}", Accepted(Form.TABLE)),
        ("application/json;q=0,application/yaml", Accepted(media=YAML)),
    ],
)
def test_first_acceptable_form(header: str, wanted: Accepted) -> None:
    assert accepted(header) == wanted


@pytest.mark.parametrize(
    "header", ["text/html", "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", "application/json;q=x"]
)
def test_nothing_acceptable(header: str) -> None:
    with pytest.raises(ApiError) as refused:
        accepted(header)
    assert refused.value.code == 406
