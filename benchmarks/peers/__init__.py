"""Side by side with other libraries: the same work in one process, in turns. No cells, so pytest collects none."""
