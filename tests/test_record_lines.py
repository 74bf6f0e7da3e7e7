"""Where a record says it was made: record_lines, and its environment variable."""

import os
import sys

import numpy as np
import pytest

import tape
from tests.checks import ROOT, leaf, run_python


def test_record_lines_remembers_the_users_line():
    x = leaf([1.0, 2.0])
    with tape.record_lines():
        y = x * 2
        z = tape.softmax(y + 1)
    number = sys._getframe().f_lineno - 2
    table = tape.show(z).splitlines()
    assert table[0].endswith("recorded at")
    assert table[1].endswith(f"{__file__}:{number}")
    assert table[2].endswith(f"{__file__}:{number + 1}")
    assert table[3].endswith(f"{__file__}:{number + 1}")
    assert f"{__file__}:{number}" in repr(y._record)
    assert "recorded at" not in tape.show(x * 2)


def test_record_lines_as_decorator():
    @tape.record_lines
    def function(x):
        return x * 2
    assert "test_record_lines.py:" in tape.show(function(leaf(1.0)))


def test_the_line_of_a_numpy_function_is_the_callers():
    with tape.record_lines():
        y = np.mean(np.exp(leaf([1.0])))
    assert tape.show(y).count("test_record_lines.py:") == 2


@pytest.mark.parametrize("value, on", [("1", True), ("0", False), ("", False), (None, False)])
def test_the_environment_variable(value, on, tmp_path):
    script = tmp_path / "user_script.py"
    script.write_text("import tape\n"
                      "x = tape.Tensor(1.0, requires_grad=True)\n"
                      "y = x * 2\n"
                      "print(tape.show(y))\n"
                      "y.backward()\n"
                      "try:\n"
                      "    y.backward()\n"
                      "except RuntimeError as error:\n"
                      "    print(error)\n", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "TAPE_RECORD_LINES"}
    environment["PYTHONPATH"] = str(ROOT)
    if value is not None:
        environment["TAPE_RECORD_LINES"] = value
    run = run_python(str(script), env=environment)
    assert run.returncode == 0 and run.stderr == ""
    assert run.stdout.count("user_script.py:3") == (2 if on else 0)
