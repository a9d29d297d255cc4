"""A real cluster of several hosts on one machine, for tests."""
