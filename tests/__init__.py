"""Tests."""

import os

# Before numpy is loaded: on matrices as small as those of the tests, several threads of a linear
# algebra library wait for each other, and on a busy machine ten times longer than they work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
