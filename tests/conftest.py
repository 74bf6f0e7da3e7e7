"""Settings that must be made before NumPy is imported."""

import os

# The matrices of the tests are small: more threads would cost more than they bring, and the tests
# that start processes would have them fight for the processors.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
