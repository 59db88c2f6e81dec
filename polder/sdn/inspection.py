"""What a node's network is, for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is, for people: canonical texts, and sentences about what is broken."""

    topology: str
    desired: str
    missing: str
    surplus: str
    problems: tuple[str, ...]
