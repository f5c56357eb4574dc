"""Every goal of speed, beside other libraries or a number: the same work in one process, in turns. No cells, so pytest
collects none.

    python -m benchmarks.peers [--only NAMES] [--rounds N] [--json docs/notes/peers-DATE.json]

from the repository's root, after `pip install -e ".[peers,envpool]"`. A module of `__main__.MODULES` has `WORKS`, which
maps names to functions from a number of rounds (None: as many as suits the work) to something whose `row()` is a line
of the table (`alternation.row`): name, goal, what was measured, and whether it is met.
"""
