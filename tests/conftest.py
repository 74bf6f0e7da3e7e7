"""Settings that must be made before NumPy is imported, and fixtures of several files.

What the fixtures need is imported within them, after the settings; test_structure.py asks for that.
"""

import gc
import gzip
import os

import pytest

# The matrices of the tests are small: more threads would cost more than they bring, and the tests
# that start processes would have them fight for the processors.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def pytest_collection_finish():
    """The collector leaves out what is there to stay: the tests and the libraries they compare with."""
    gc.freeze()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A fresh current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def images_folder(tmp_path):
    """A data set of 8 x 6 images whose brightness gives the label."""
    import numpy as np
    from tests.checks import idx_bytes
    rng = np.random.default_rng(2)
    for part, count in (("train", 90), ("t10k", 30)):
        labels = np.arange(count) % 3
        images = rng.integers(0, 40, (count, 8, 6)) + 100 * labels[:, None, None]
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images.astype(np.uint8)))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(idx_bytes(labels.astype(np.uint8))))
    return tmp_path


@pytest.fixture
def traced():
    """What runs in the test can be frozen as a static graph."""
    import tape.lazy as ad
    with ad.tracing():
        yield


@pytest.fixture(params=["numpy", "numba"])
def kernel_set(request):
    """The test runs with each set of kernels that is installed; the value is its name."""
    import tape
    if request.param == "numba":
        pytest.importorskip("numba", reason="numba is not installed; pip install -e '.[fast]'")
    with tape.use_kernels(request.param):
        yield request.param


@pytest.fixture
def taught():
    """What `implements` and `primitive` register in a test is forgotten behind it."""
    from tape.primitive import NUMPY_FUNCTIONS
    before = dict(NUMPY_FUNCTIONS)
    yield
    NUMPY_FUNCTIONS.clear()
    NUMPY_FUNCTIONS.update(before)
