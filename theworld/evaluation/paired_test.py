"""The paired test of everything here that answers several questions about one image: whole images change their sign.

McNemar's test takes questions for independent. Those of one image are not: if a method misreads the image it misreads
it in all of them, and ten answers are then little more evidence than one. Under the null hypothesis that two methods
are equally good, exchanging them on all questions of an image changes nothing, so the image's difference (questions
that only the first got right minus those that only the second did) is as likely as its negative, whatever goes on
within the image. The p-value is the share of all 2^images choices of signs whose total is at least as far from 0. The
differences are whole numbers, so all choices are counted, not sampled: there are no draws and there is no seed. With
one question an image this is McNemar's exact test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom, norm

from theworld.evaluation.prediction_file import Json
from theworld.evaluation.statistics import Interval, cluster_bootstrap, mcnemar_exact

METHOD = "exact sign flips of whole images"
"""Of `PairedTest.p_value`, for tables and files."""


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Two methods on the same questions.

    Attributes:
        only_first: Questions that only the first method got right.
        only_second: Questions that only the second method got right.
        images: Images on which they got different numbers right; the others carry no evidence.
        p_value: Two-sided, by images: this one decides.
        mcnemar_p_value: Exact McNemar, which takes the questions for independent; the same where no two share an image.
    """

    only_first: int
    only_second: int
    images: int
    p_value: float
    mcnemar_p_value: float


def paired_test(first: Sequence[bool], second: Sequence[bool], images: Sequence[str]) -> PairedTest:
    """Compare two methods.

    Args:
        first: Whether the first method got each question right.
        second: Whether the second one did.
        images: The image of each question.

    Raises:
        ValueError: The lengths differ.
    """
    if not len(first) == len(second) == len(images):
        raise ValueError(
            f"found {len(first)}, {len(second)} and {len(images)} first outcomes, second outcomes and images; expected "
            "one of each a question; score both methods on the same questions"
        )
    mcnemar = mcnemar_exact(first, second)
    sums = _sums([int(a) - int(b) for a, b in zip(first, second, strict=True)], images)
    return PairedTest(
        only_first=mcnemar.only_first,
        only_second=mcnemar.only_second,
        images=int(np.count_nonzero(sums)),
        p_value=_share_as_uneven(sums[sums != 0]),
        mcnemar_p_value=mcnemar.p_value,
    )


def sign_flip_p_value(differences: Sequence[float], images: Sequence[str]) -> float:
    """The p-value alone, of differences of questions: 1 if only the first is right, −1 if only the second is, else 0.

    Args:
        differences: One a question, whole numbers.
        images: The image of each question.

    Raises:
        ValueError: There is none, the lengths differ, or a difference is no whole number.
    """
    if not len(differences) or len(differences) != len(images) or any(d != int(d) for d in differences):
        raise ValueError(
            f"found {len(differences)} differences and {len(images)} images; expected one image a difference, at least "
            "one, and whole numbers; pass the differences of outcomes, question by question"
        )
    sums = _sums(differences, images)
    return _share_as_uneven(sums[sums != 0])


def _sums(differences: Sequence[float], images: Sequence[str]) -> NDArray[np.int64]:
    """Of every image; int64[images]."""
    _, members = np.unique(np.asarray(images), return_inverse=True)
    return np.rint(np.bincount(members, weights=np.asarray(differences, dtype=np.float64))).astype(np.int64)


def difference_interval(first: Sequence[bool], second: Sequence[bool], images: Sequence[str]) -> Interval:
    """95 % interval of the second method's accuracy minus the first's.

    The union of Tango's score interval (honest where few questions differ, or none) and a bootstrap over images (honest
    about several questions of one image).

    Args:
        first: Whether the first method got each question right; at least one.
        second: Whether the second one did.
        images: The image of each question.
    """
    differences = [float(b) - float(a) for a, b in zip(first, second, strict=True)]
    gained, lost = differences.count(1.0), differences.count(-1.0)
    score, by_image = tango_interval(gained, lost, len(differences)), cluster_bootstrap(differences, images)
    return Interval(min(score.low, by_image.low), max(score.high, by_image.high))


def tango_interval(gained: int, lost: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Interval of (gained − lost) / n, the differences whose score test does not reject (Tango, 1998, Stat. Med. 17).

    Args:
        gained: Pairs in which only the second is right.
        lost: Pairs in which only the first is.
        n: All pairs, which are taken for independent.
        confidence: Coverage.
    """
    z = float(norm.ppf((1 + confidence) / 2))
    found = (gained - lost) / n

    def score(difference: float) -> float:
        linear = -gained - lost + (2 * n - gained + lost) * difference
        constant = -lost * difference * (1 - difference)
        share = ((linear**2 - 8 * n * constant) ** 0.5 - linear) / (4 * n)  # likeliest share of losses, given it
        variance = n * (2 * share + difference * (1 - difference))
        return n * (found - difference) / max(variance, 1e-300) ** 0.5

    low = -1.0 if found == -1 else brentq(lambda d: score(d) - z, -1 + 1e-12, found)
    high = 1.0 if found == 1 else brentq(lambda d: score(d) + z, found, 1 - 1e-12)
    return Interval(float(low), float(high))


def line_of(other: str, first: float, second: float, test: PairedTest) -> str:
    """A test of the model against something else, for the caption of a table.

    Args:
        other: What the model is compared with.
        first: The model's accuracy.
        second: That of the other.
        test: Of the two.
    """
    return (
        f"model {100 * first:.1f}, {other} {100 * second:.1f}; alone right on {test.only_first} and "
        f"{test.only_second}: p = {test.p_value:.3g} by images (McNemar by questions {test.mcnemar_p_value:.3g})"
    )


def json_of(test: PairedTest, other: str) -> dict[str, Json]:
    """The same in plain JSON types; `other` names a key."""
    return {
        "method": f"{METHOD}, model against {other.replace('_', ' ')}, all questions",
        "only_model_right": test.only_first,
        f"only_{other}_right": test.only_second,
        "images_that_differ": test.images,
        "p_value": test.p_value,
        "mcnemar_p_value": test.mcnemar_p_value,
    }


def _share_as_uneven(differences: NDArray[np.int64]) -> float:
    """Share of the choices of signs whose total is at least as far from 0 as that of int64[images] is.

    The total is twice the sum of the positive sizes, less all. Of the images of one size a binomial number is
    positive; sums of independent numbers have the convolution of their distributions.
    """
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    chances = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        positive = np.zeros(size * count + 1)
        positive[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, positive)
    totals = np.abs(2 * np.arange(len(chances)) - (len(chances) - 1))
    share = float(chances[totals >= abs(int(differences.sum()))].sum())
    return share if share < 1 - 1e-9 else 1.0  # all of them, but for rounding
