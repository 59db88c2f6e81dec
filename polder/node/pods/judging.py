"""What ends a pod by the node's own judgement, whatever its containers do."""

from __future__ import annotations

from datetime import datetime

from polder.api.core import Pod
from polder.node.pods.context import Context
from polder.node.pods.refuse import refusal
from polder.node.pods.status import TERMINAL, Verdict

EVICTED, OVERDUE = "Evicted", "DeadlineExceeded"


async def judge(ctx: Context, pod: Pod, turned_away: tuple[str, str] | None) -> Verdict | None:
    """The verdict, None where the pod may go on. ``turned_away``: why the node has no room for it."""
    if (refused := refusal(pod, ctx.features) or turned_away) is not None:
        return Verdict(*refused)
    if pod.status.phase in TERMINAL:
        return None
    if exceeded := await ctx.volumes.exceeded(pod):
        return Verdict(EVICTED, exceeded)
    left = deadline_left(ctx, pod)
    if left is not None and left <= 0:
        return Verdict(OVERDUE, "Pod was active on the node longer than the specified deadline")
    return None


def deadline_left(ctx: Context, pod: Pod) -> float | None:
    """Seconds that the pod may still be active; None without a deadline."""
    limit, began = pod.spec.active_deadline_seconds, pod.status.start_time
    if limit is None or began is None:
        return None
    return limit - (ctx.clock.now() - datetime.fromisoformat(began)).total_seconds()
