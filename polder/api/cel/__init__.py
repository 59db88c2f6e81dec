"""CEL as Kubernetes 1.36 has it: compile once, run often, within a budget. ADR 9 says why it is written here."""

from polder.api.cel.errors import CelError, OutOfBudgetError, TooLongError
from polder.api.cel.program import Budget, Program, compile_cel
from polder.api.cel.types import CelType

__all__ = ["Budget", "CelError", "CelType", "OutOfBudgetError", "Program", "TooLongError", "compile_cel"]
