"""Is everything in place to run a sweep? One module a group of checks; none changes anything."""
