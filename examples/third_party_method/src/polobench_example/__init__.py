"""A method and a task for polobench, in a package of their own."""
