"""Every value is counted in the bar it belongs to, and bars reach the height of their count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theworld.data.inspection.histograms import HEIGHT, WIDTH, bars, histograms, nice_step


@given(st.lists(st.integers(0, 10**9) | st.integers(0, 60), min_size=1, max_size=200))
def test_bars_hold_all_values(values):
    array = np.array(values, dtype=np.int64)
    first, width, counts = bars(array)
    assert counts.sum() == len(values)
    assert 1 <= len(counts) <= 51
    assert counts[0] > 0
    assert counts[-1] > 0
    for number, count in enumerate(counts):
        low = first + number * width
        assert count == ((array >= low) & (array < low + width)).sum()


@pytest.mark.parametrize(
    ("least", "step"), [(0.1, 1), (1, 1), (1.1, 2), (3, 5), (6, 10), (10, 10), (21, 50), (600, 1000)]
)
def test_steps_are_1_2_5_times_a_power_of_ten(least, step):
    assert nice_step(least) == step


def test_a_bar_is_as_high_as_its_count():
    """Twice as many, twice as high; one value has a bar that can be seen."""
    values = np.repeat([0, 1, 2], [400, 200, 1])
    picture = np.array(histograms({"few": values}))
    blue = (picture == (47, 111, 176)).all(axis=2)
    columns = np.flatnonzero(blue.any(axis=0))
    groups = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    heights = [blue[:, group].any(axis=1).sum() for group in groups]
    assert len(heights) == 3
    assert abs(heights[0] - 2 * heights[1]) <= 2
    assert 1 <= heights[2] <= 3


def test_histograms_lie_two_by_two():
    column = np.arange(10)
    assert histograms({"a": column}).size == (WIDTH, HEIGHT)
    assert histograms({"a": column, "b": column, "c": column}).size == (2 * WIDTH, 2 * HEIGHT)


@pytest.mark.parametrize("columns", [{}, {"a": np.array([], dtype=np.int64)}])
def test_nothing_to_count_is_refused(columns):
    with pytest.raises(ValueError, match="found no values to count"):
        histograms(columns)
