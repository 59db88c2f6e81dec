"""What a disruption budget says to an eviction, in upstream's words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from polder.api.errors import ApiError
from polder.apiserver.evictions import check_budget, protects_unready, spent


def budget(generation: int = 1, **status: Any) -> Any:
    return {"metadata": {"name": "b", "generation": generation}, "status": {"observedGeneration": 1, **status}}


def denied(reason: str, message: str = "") -> list[Any]:
    return [{"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": message}]


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (budget(2, disruptionsAllowed=1), 429, "is still being processed by the server"),
        (budget(disruptionsAllowed=-1), 403, "negative"),
        (budget(disruptedPods={f"p{n}": "t" for n in range(2001)}, disruptionsAllowed=1), 403, "DisruptedPods map too big"),
        (budget(conditions=denied("SyncFailed", "why")), 429, "currently because it failed sync: why"),
        (budget(currentHealthy=1, desiredHealthy=2), 429, "needs 2 healthy pods and has 1 currently"),
        (budget(currentHealthy=3, conditions=denied("Other", "so")), 429, "evicting pods currently (Other): so"),
        (budget(currentHealthy=3), 429, "does not allow evicting pods currently"),
    ],
)  # fmt: skip
def test_what_a_budget_refuses(found: Any, code: int, said: str) -> None:
    with pytest.raises(ApiError) as refused:
        check_budget(found)
    words = [refused.value.message, *(cause["message"] for cause in refused.value.details.get("causes", []))]
    assert refused.value.code == code and any(said in sentence for sentence in words)


def test_a_disruption_is_spent() -> None:
    check_budget(budget(disruptionsAllowed=1))
    after = spent(budget(disruptionsAllowed=1), "p", datetime(2026, 1, 1, tzinfo=UTC))["status"]
    assert after["disruptionsAllowed"] == 0 and after["disruptedPods"] == {"p": "2026-01-01T00:00:00Z"}
    assert after["conditions"][0]["reason"] == "InsufficientPods"


def test_pods_that_are_not_ready() -> None:
    assert protects_unready(budget(currentHealthy=1, desiredHealthy=2))
    assert not protects_unready(budget(currentHealthy=2, desiredHealthy=2))
    assert protects_unready(budget(currentHealthy=0, desiredHealthy=0))
    assert not protects_unready({**budget(), "spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}})
