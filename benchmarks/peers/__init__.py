"""Side by side with other libraries: the same work in one process, in turns. No cells, so pytest collects none.

    python -m benchmarks.peers [--only NAMES] [--rounds N] [--json]

from the repository's root, after `pip install -e ".[peers,envpool]"`. A module of `__main__.MODULES` has `WORKS`, which
maps names to functions from a number of rounds (None: as many as suits the work) to a `alternation.Comparison`.
"""
