"""The methods that come with bhnbench, one a file."""
