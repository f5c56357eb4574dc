from polobench.testing import MethodConformance, TaskConformance


class TestA2C(MethodConformance):
    method = "a2c"


class TestCatch(TaskConformance):
    task = "catch"
