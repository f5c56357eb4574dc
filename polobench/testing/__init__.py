"""Conformance suites: the author of a method or a task inherits one, and pytest checks the whole contract.

    from polobench.testing import MethodConformance

    class TestMine(MethodConformance):
        method = "mine"

`TaskConformance` does the same for a task. A check that fails says in one line what was found and what is allowed.
"""

from __future__ import annotations

from polobench.testing.methods import MethodConformance
from polobench.testing.tasks import TaskConformance

__all__ = ["MethodConformance", "TaskConformance"]
