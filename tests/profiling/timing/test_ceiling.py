"""The ceiling counts a product's multiplications and additions, in the fastest of the tries."""

from __future__ import annotations

import torch

from theworld.profiling.timing import ceiling


def test_the_ceiling_is_two_operations_a_multiplication(monkeypatch):
    tries = iter([4.0, 2.0, *[3.0] * 6])
    monkeypatch.setattr(ceiling, "_seconds", lambda *_: next(tries))
    assert ceiling.measured_ceiling(torch.device("cpu")) == 2 * 1024**3 / 2.0
