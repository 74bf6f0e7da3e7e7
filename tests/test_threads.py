"""The number of threads of the matrix products, by threadpoolctl and by OpenBLAS's own functions."""

import _ctypes
import pytest

import nn
import tape
from nn.training.parallel import available_cores
from tape import blas
from tests.checks import run_python

SCRIPT = """
import os, sys
{before}
import numpy as np
import nn
import tape
from tape.blas import blas_threads
from nn.training.parallel import available_cores
{code}
"""


def printed(code, before="", **environment):
    """What a new process prints, in which no thread variable is set but those given."""
    clear = "".join(f"os.environ.pop({name!r}, None)\n" for name in (
        "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"))
    given = "".join(f"os.environ[{name!r}] = {value!r}\n" for name, value in environment.items())
    done = run_python("-c", SCRIPT.format(before=clear + given + before, code=code))
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


WITHOUT = "sys.modules['threadpoolctl'] = None         # as if it were not installed"
several = pytest.mark.skipif(available_cores() < 2 or blas.blas_threads() is None,
                             reason="several processors, and a BLAS that can be asked")


@several
@pytest.mark.parametrize("before", ["", WITHOUT], ids=["as installed", "without threadpoolctl"])
def test_products_are_limited_and_given_back(before):
    code = """
print(blas_threads())
with tape.limit_blas_threads(1) as limit:
    print(limit.works, blas_threads())
    with tape.limit_blas_threads(8):
        print(blas_threads())
print(blas_threads())
tape.limit_blas_threads(1)
print(blas_threads())
"""
    most, *others = printed(code, before)
    assert int(most) >= 2 and others == ["True", "1", "1", most, "1"]


@several
def test_what_the_user_set_is_not_raised():
    code = "tape.limit_blas_threads(2); print(blas_threads())"
    assert printed(code, OPENBLAS_NUM_THREADS="1") == ["1"]


@several
@pytest.mark.parametrize("script", ["train", "generate"])
def test_the_scripts_leave_each_product_to_one_thread(script):
    code = f"""
import {script}
from nn.cli.script import run
print(blas_threads() > 1, run({script!r}, blas_threads), blas_threads() > 1)
"""
    assert printed(code) == ["True", "1", "True"]


@several
def test_a_parallel_model_leaves_each_product_to_one_thread():
    code = """
parallel = nn.DataParallel(nn.Linear(3, 2, rng=0))
from tape import Tensor
parallel(Tensor(np.ones((4, 3))))
print(blas_threads(), parallel._workers() == available_cores())
"""
    assert printed(code) == ["1", "True"]


def test_where_no_library_is_found_there_is_one_worker(monkeypatch):
    monkeypatch.setattr(blas, "_loaded", lambda: [])
    assert not tape.limit_blas_threads(1).works and blas.blas_threads() is None
    assert nn.DataParallel(nn.Linear(2, 3, rng=0))._workers() == 1
    assert nn.DataParallel(nn.Linear(2, 3, rng=0), 3)._workers() == 3


def test_a_library_without_the_functions_and_a_file_that_is_none_are_passed_over(tmp_path):
    (tmp_path / "openblas.so").write_text("no library")
    assert blas._of_openblas(tmp_path / "openblas.so") == []
    assert blas._of_openblas(_ctypes.__file__) == []


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1", True, None])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="limit must be a positive integer, got"):
        tape.limit_blas_threads(limit)
