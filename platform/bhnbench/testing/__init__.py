"""Conformance suites: the laws that every method and task must keep. Needs pytest.

::

    from bhnbench.testing import MethodSuite, TaskSuite

    class TestMyMethod(MethodSuite):
        method = "my_method"            # an installed name, a class or an instance

    class TestMyTask(TaskSuite):
        task = "my_task"
        settings = {"n_rounds": 2}      # a small variant, so that the suite takes seconds

Not among the laws, because no generic test is both fast and sharp: that the optimum does not
depend on the batch size, and that a posterior is right. They need a problem with a known answer.
"""

from bhnbench.testing.methods import MethodSuite
from bhnbench.testing.tasks import TaskSuite

__all__ = ["MethodSuite", "TaskSuite"]
