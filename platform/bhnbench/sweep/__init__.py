"""Sweep files: read, checked, planned."""
