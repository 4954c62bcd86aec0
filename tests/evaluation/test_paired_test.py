"""The paired test by images: against enumeration, against McNemar, and under a null in which images decide."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from theworld.evaluation.paired_test import difference_interval, paired_test, sign_flip_p_value, tango_interval
from theworld.evaluation.statistics import mcnemar_exact


def pairs(*images: int) -> tuple[list[bool], list[bool], list[str]]:
    """Outcomes of two methods: image i has |images[i]| questions that only the first (or, if negative, second) gets."""
    first, second, names = [], [], []
    for number, difference in enumerate(images):
        first += [difference > 0] * abs(difference) + [True]
        second += [difference < 0] * abs(difference) + [True]
        names += [f"image-{number}"] * (abs(difference) + 1)
    return first, second, names


@pytest.mark.parametrize(
    "images", [(3, 1, -1, 2), (5, 5, 5), (4, -4), (1, 2, 4, 8, -3), (0, 0, 7), (2, 2, 2, 2, -1, 1)]
)
def test_it_is_the_share_of_all_flips_that_are_as_uneven(images):
    sums = [sum(a * b for a, b in zip(images, signs, strict=True)) for signs in product((1, -1), repeat=len(images))]
    expected = sum(abs(found) >= abs(sum(images)) for found in sums) / len(sums)
    assert paired_test(*pairs(*images)).p_value == pytest.approx(expected, rel=1e-12)


def test_with_one_question_an_image_it_is_mcnemars():
    random = np.random.default_rng(0)
    for n, share in ((5, 0.5), (40, 0.8), (300, 0.95), (300, 0.6), (4000, 0.7)):
        first, second = random.random(n) < share, random.random(n) < 0.5
        found = paired_test(first.tolist(), second.tolist(), [str(number) for number in range(n)])
        expected = mcnemar_exact(first.tolist(), second.tolist())
        assert (found.only_first, found.only_second) == (expected.only_first, expected.only_second)
        assert found.mcnemar_p_value == expected.p_value
        assert found.p_value == pytest.approx(expected.p_value, rel=1e-9)
        assert found.images == found.only_first + found.only_second


def test_of_differences_alone():
    differences = [1.0, 1.0, -1.0, 1.0, 0.0, 1.0, 1.0, -1.0, 1.0, 0.0]
    images = ["a", "a", "b", "b", "b", "c", "d", "e", "f", "g"]
    assert sign_flip_p_value(differences, images) == pytest.approx(5 / 16)  # by hand: two ±6 and eight ±4 of 32
    assert sign_flip_p_value([-d for d in differences[::-1]], images[::-1]) == pytest.approx(5 / 16)
    assert sign_flip_p_value([1.0, -1.0], ["a", "a"]) == 1.0
    for given in ([], [1.0]), ([0.5], ["a"]), ([], []):
        with pytest.raises(ValueError, match="expected one image a difference, at least one, and whole numbers"):
            sign_flip_p_value(*given)


def test_copies_of_a_question_are_no_evidence():
    """Five copies of each of 12 questions: McNemar takes them for 60, the images' test for 12."""
    once = paired_test(*pairs(*[1] * 9, *[-1] * 3))
    five = paired_test(*pairs(*[5] * 9, *[-5] * 3))
    assert five.p_value == pytest.approx(once.p_value, rel=1e-12)
    assert five.mcnemar_p_value < 0.001 < 0.05 < five.p_value
    assert (five.only_first, five.only_second, five.images) == (45, 15, 12)


def test_order_and_names_of_images_do_not_matter():
    first, second, names = pairs(3, -1, 2, 2, 1)
    found = paired_test(first, second, names)
    assert found == paired_test(first[::-1], second[::-1], [name.upper() for name in names[::-1]])
    mirrored = paired_test(second, first, names)
    assert (mirrored.p_value, mirrored.only_first) == (found.p_value, found.only_second)


def test_nothing_differs_and_very_much_differs():
    assert paired_test(*pairs(*[3] * 5, *[-3] * 5)).p_value == 1.0
    same = paired_test([True, False], [True, False], ["a", "b"])
    assert (same.p_value, same.mcnemar_p_value, same.images) == (1.0, 1.0, 0)
    assert paired_test(*pairs(*[2] * 100)).p_value == pytest.approx(2 * 0.5**100, rel=1e-9)


def rejections(sets: int, *, effect: float, seed: int) -> tuple[float, float]:
    """Share of sets of 30 images × 10 questions with p < 0.05, by images and by McNemar.

    An image has a difficulty for each of two methods, drawn from one distribution; a question is right with it.
    """
    random = np.random.default_rng(seed)
    names = [str(image) for image in range(30) for _ in range(10)]
    found = []
    for _ in range(sets):
        first, second = random.beta(1, 1, 30) + effect, random.beta(1, 1, 30)
        outcomes = [random.random(300) < np.repeat(chance, 10) for chance in (first, second)]
        test = paired_test(*(outcome.tolist() for outcome in outcomes), names)
        found.append((test.p_value < 0.05, test.mcnemar_p_value < 0.05))
    by_images, by_questions = np.mean(found, axis=0)
    return float(by_images), float(by_questions)


def test_an_effect_is_found():
    assert rejections(60, effect=0.5, seed=1)[0] > 0.9


@pytest.mark.slow
def test_under_the_null_one_set_in_twenty_is_significant():
    """4,000 sets: 5 % ± 1 %; McNemar, which takes the questions for independent, cries wolf in three of ten."""
    by_images, by_questions = rejections(4000, effect=0.0, seed=2)
    assert by_images == pytest.approx(0.05, abs=0.01)
    assert by_questions > 0.3


@pytest.mark.parametrize(("gained", "lost", "n"), [(0, 0, 60), (12, 2, 50), (33, 17, 300), (1, 0, 8), (0, 9, 9)])
def test_tangos_interval_ends_where_the_score_test_does(gained, lost, n):
    """At each end the difference is 1.96 standard errors off, with the shares that are likeliest if it is true."""
    found = tango_interval(gained, lost, n)
    mirrored = tango_interval(lost, gained, n)
    assert (found.low, found.high) == pytest.approx((-mirrored.high, -mirrored.low), abs=1e-9)
    for end in {found.low, found.high} - {1.0, -1.0}:

        def unlikeliness(lost_share, end=end):
            shares = np.array([lost_share + end, lost_share, 1 - 2 * lost_share - end])
            counts = np.array([gained, lost, n - gained - lost])
            return -np.sum(counts * np.log(np.maximum(shares, 1e-12)))

        share = minimize_scalar(
            unlikeliness, bounds=(max(0, -end), (1 - end) / 2), method="bounded", options={"xatol": 1e-12}
        ).x
        error = ((2 * share + end - end**2) / n) ** 0.5
        assert abs((gained - lost) / n - end) / error == pytest.approx(1.959964, abs=1e-3)


def test_an_interval_of_no_difference_has_a_width():
    """A bootstrap alone has none: it can draw no difference that it has not seen."""
    found = difference_interval([True] * 60, [True] * 60, [str(number) for number in range(60)])
    assert (found.low, found.high) == pytest.approx((-3.8415 / 63.8415, 3.8415 / 63.8415), abs=1e-5)
    by_image = difference_interval([True] * 60, [False] * 20 + [True] * 40, [str(number // 10) for number in range(60)])
    alone = difference_interval([True] * 60, [False] * 20 + [True] * 40, [str(number) for number in range(60)])
    assert by_image.low < alone.low - 0.15


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="found 1, 2 and 2 first outcomes, second outcomes and images"):
        paired_test([True], [True, False], ["a", "b"])
