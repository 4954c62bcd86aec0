"""The paired test by sign flips against a count of every choice of signs, and against a test that knows no clusters."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from theworld.evaluation.statistics import mcnemar_exact, sign_flip_test


def test_it_approaches_the_count_of_every_choice_of_signs() -> None:
    differences = [1.0, 1.0, -1.0, 1.0, 0.0, 1.0, 1.0, -1.0, 1.0, 0.0]
    clusters = ["a", "a", "b", "b", "b", "c", "d", "e", "f", "g"]
    sums = [2, 0, 1, 1, -1, 1, 0]
    extreme = [abs(sum(s * v for s, v in zip(signs, sums, strict=True))) >= 4 for signs in product((-1, 1), repeat=7)]
    assert np.mean(extreme) == pytest.approx(5 / 16)  # by hand: two are ±6 and eight ±4 of 32 that differ
    assert sign_flip_test(differences, clusters) == pytest.approx(5 / 16, abs=0.01)


def test_with_an_image_a_question_it_is_nearly_mcnemar() -> None:
    first = [True] * 18 + [False] * 6 + [True] * 40
    second = [False] * 18 + [True] * 6 + [True] * 40
    differences = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
    exact = mcnemar_exact(first, second).p_value
    assert sign_flip_test(differences, [str(i) for i in range(64)]) == pytest.approx(exact, rel=0.1)
    # The same differences, six to an image: less evidence.
    assert sign_flip_test(differences, [str(i // 6) for i in range(64)]) > 3 * exact


def test_order_does_not_matter_and_nothing_found_is_no_evidence() -> None:
    differences, clusters = [1.0, -1.0, 1.0, 1.0, 0.0], ["a", "b", "b", "c", "d"]
    p_value = sign_flip_test(differences, clusters)
    assert p_value == sign_flip_test(differences[::-1], clusters[::-1])
    assert p_value == sign_flip_test([-d for d in differences], clusters)
    assert sign_flip_test([0.0, 0.0], ["a", "b"]) == 1.0
    assert sign_flip_test([1.0, -1.0], ["a", "a"]) == 1.0
    assert sign_flip_test([1.0] * 60, [str(i) for i in range(60)], resamples=500) == 1 / 501


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="found 1 values and 2 clusters"):
        sign_flip_test([1.0], ["a", "b"])
    with pytest.raises(ValueError, match="found resamples=0"):
        sign_flip_test([1.0], ["a"], resamples=0)
