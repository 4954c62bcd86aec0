"""Several sources: shares exact over epochs, one numbering, weights, and what cannot be mixed."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.counted_samples import PROCESSOR, CountedSamples
from theworld.data.packing.mixture import Mixture, Source, as_mixture


def _samples(count, **changes):
    return CountedSamples(np.random.default_rng(count).integers(10, 60, count), **changes)


def test_one_numbering_over_all_sources():
    mixture = Mixture(
        [
            Source("a", _samples(3, groups=[0, 0, 1], targets=[1, 2, 3])),
            Source("b", _samples(2, groups=[0, 1], images=[0, 1]), loss_weight=0.5),
        ]
    )
    assert len(mixture) == 5
    assert [mixture.id(i) for i in range(5)] == ["a/0", "a/1", "a/2", "b/0", "b/1"]
    assert [mixture[i].id for i in range(5)] == [mixture.id(i) for i in range(5)]
    assert [len(mixture[i].input_ids) for i in range(5)] == mixture.lengths.tolist()
    assert mixture[3].input_ids[0] == 1  # the second source's first
    assert mixture.targets.tolist() == [1, 2, 3, 1, 1]
    assert mixture.num_images.tolist() == [1, 1, 1, 0, 1]
    assert mixture.groups.tolist() == [0, 0, 1, 2, 3]
    assert mixture.weights.tolist() == [1, 1, 1, 0.5, 0.5]
    assert [mixture.loss_weight(i) for i in (0, 4)] == [1, 0.5]
    for outside in (-1, 5):
        with pytest.raises(IndexError, match="the mixture has 5"):
            mixture[outside]


def test_a_single_source_keeps_its_ids_and_weighs_nothing():
    mixture = as_mixture(_samples(3))
    assert as_mixture(mixture) is mixture
    assert [mixture[i].id for i in range(3)] == ["0", "1", "2"]
    assert (mixture.weights, mixture.groups, mixture.cycle) == (None, None, 1)
    assert mixture.loss_weight(0) == 1.0
    assert mixture.epoch(3, seed=0).tolist() == [0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    shares=st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0]), min_size=3, max_size=3),
    seed=st.integers(0, 3),
)
def test_shares_are_exact_over_a_cycle(counts, shares, seed):
    """After `cycle` epochs every sample was seen share x cycle times; none is ever ahead or behind by one."""
    mixture = Mixture([Source(f"{n}", _samples(count), shares[n]) for n, count in enumerate(counts)])
    seen = Counter()
    owner = np.repeat(np.arange(len(counts)), counts)
    for epoch in range(mixture.cycle):
        numbers = mixture.epoch(epoch, seed=seed)
        assert numbers.tolist() == sorted(numbers.tolist())
        seen.update(numbers.tolist())
        for number, source in enumerate(owner):
            assert int(shares[source] * (epoch + 1)) <= seen[number] <= int(np.ceil(shares[source] * (epoch + 1)))
        of_source = np.bincount(owner[numbers], minlength=len(counts))
        assert np.all(np.abs(of_source - np.array(counts) * shares[: len(counts)]) < 1)
    assert all(seen[number] == shares[source] * mixture.cycle for number, source in enumerate(owner))
    assert np.array_equal(mixture.epoch(mixture.cycle, seed=seed), mixture.epoch(0, seed=seed))


def test_halves_are_disjoint_random_and_equally_long():
    mixture = Mixture([Source("half", _samples(1000), 0.5)])
    first, second, other = (set(mixture.epoch(e, seed=s).tolist()) for e, s in ((0, 0), (1, 0), (0, 1)))
    assert len(first) == len(second) == 500
    assert not first & second
    assert 150 < len(first & other) < 350  # another seed draws other halves
    tokens = [mixture.lengths[list(half)].sum() for half in (first, second)]
    assert abs(int(tokens[0] - tokens[1])) < 200  # of 17,000: less than any draw of the kind would give by chance


def test_the_fingerprint_names_every_source():
    samples = _samples(3)
    mixture = Mixture([Source("a", samples), Source("b", samples, 0.5, 2.0)])
    assert mixture.fingerprint() == {
        "a": {"index_sha256": samples.index.sha256, "share": 1.0, "loss_weight": 1.0},
        "b": {"index_sha256": samples.index.sha256, "share": 0.5, "loss_weight": 2.0},
    }


OTHER = SimpleNamespace(pad_token_id=0, fixed_tokens=1, tokenizer=SimpleNamespace(get_vocab=lambda: {"b": 0}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a: [], "found no sources"),
        (lambda a: [Source("a", a), Source("a", a)], "several sources of the name 'a'"),
        (lambda a: [Source("a", CountedSamples([]))], "source 'a' has no samples"),
        (lambda a: [Source("a", a, share=0)], "source 'a': found share=0, expected more than 0"),
        (lambda a: [Source("a", a, loss_weight=-1)], "source 'a': found loss_weight=-1, expected more than 0"),
        (lambda a: [Source("a", a, loss_weight=float("nan"))], "found loss_weight=nan"),
        (lambda a: [Source("a", a, share=1 / 101)], "denominator of at most 100"),
        (lambda a: [Source("a", a, 0.99), Source("b", a, 1 / 3)], "come round after 300 epochs"),
        (lambda a: [Source("a", a), Source("b", CountedSamples([3], processor=OTHER))], "'a' and 'b' have different"),
    ],
)
def test_what_cannot_be_mixed(make, message):
    with pytest.raises(ValueError, match=message):
        Mixture(make(_samples(3)))


def test_equal_processors_mix():
    copy = SimpleNamespace(**vars(PROCESSOR))
    assert len(Mixture([Source("a", _samples(3)), Source("b", CountedSamples([3], processor=copy))])) == 4


def test_without_shards_in_one_source_there_are_no_groups():
    mixture = Mixture([Source("a", _samples(2, groups=[0, 1])), Source("b", _samples(2))])
    assert mixture.groups is None
