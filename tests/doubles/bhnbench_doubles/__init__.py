"""Tiny plugins for tests, installed as a stranger's would be."""
