"""Everything that clusters do to a sweep, many times in one."""

import tests.conftest  # noqa: F401 - which lets this process and all hosts import the doubles
