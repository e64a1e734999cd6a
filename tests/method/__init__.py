import pytest

pytest.register_assert_rewrite("tests.method.compressing")  # so that its asserts show their values too
