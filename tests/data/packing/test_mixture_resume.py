"""A mixture with fractional shares, weights, an image cap and a window goes on exactly, on other numbers of ranks."""

import numpy as np
import pytest

from tests.counted_samples import CountedSamples
from theworld.data.packing.loader import PlanLoader
from theworld.data.packing.mixture import Mixture, Source

STEP = 4


def _loader(rank=0, world_size=1):
    lengths = np.random.default_rng(0).integers(10, 60, 61)
    shards = np.arange(61) // 8
    mixture = Mixture(
        [
            Source("half", CountedSamples(lengths, groups=shards), 0.5),
            Source("all", CountedSamples(lengths[:30], groups=shards[:30]), 1.0, 0.25),
        ]
    )
    limits = {"budget": 120, "max_images": 3, "window": 2}
    return PlanLoader(mixture, micro_batches_per_step=STEP, seed=1, rank=rank, world_size=world_size, **limits)


def _epochs(loader, count):
    return [(batch.ids, batch.step_target_tokens) for _ in range(count) for batch in loader]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_resumed_at_every_step_of_three_epochs(world_size):
    whole = _epochs(_loader(), 4)
    steps = len(_loader()) // STEP
    for done in range(1, 3 * steps):
        saved = _loader()
        _epochs(saved, done // steps)
        running = iter(saved)
        for _ in range(done % steps * STEP):
            next(running)
        ranks = [_loader(rank, world_size) for rank in range(world_size)]
        for loader in ranks:
            loader.load_state_dict(saved.state_dict())
        rest = [_epochs(loader, 4 - done // steps) for loader in ranks]
        dealt = [row for together in zip(*rest, strict=True) for row in together]
        assert dealt == whole[done * STEP :]
