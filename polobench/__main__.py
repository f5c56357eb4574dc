"""`python -m polobench` is `polobench`."""

from polobench.cli import main

main()
