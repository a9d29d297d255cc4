"""The tasks that come with bhnbench, one a file."""
