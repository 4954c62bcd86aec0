"""Two processes share the tests (`-n 2` in README), so each computes in one thread; before torch is imported."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
