"""The fullest row of a run's data: from its index if that is here, else of typical samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from theworld.data.indexing.index import Index
from theworld.data.packing.plan import plan
from theworld.models.configuration import TheWorldConfig
from theworld.profiling.plan.typical_row import SampleLength, placeholder_tokens, typical_samples

SamplesOf = Callable[[int], tuple[SampleLength, ...]]


def typical_rows(config: TheWorldConfig, *, max_seq_length: int, token_budget: int) -> tuple[SamplesOf, str]:
    """Samples of a row for any token budget, and a note on them.

    Args:
        config: Of the model.
        max_seq_length: Longest sample.
        token_budget: The config's, for the note.

    Raises:
        ValueError: Not one sample fits.
    """

    def samples_of(budget: int) -> tuple[SampleLength, ...]:
        return typical_samples(config, token_budget=budget, max_seq_length=max_seq_length)

    shown = samples_of(token_budget)
    text = shown[0].tokens - placeholder_tokens(config)
    world = config.num_world_tokens if config.enable_world else 0
    return samples_of, (
        f"typical samples, since the data's index is not here: {len(shown)} of {shown[0].tokens:,} tokens "
        f"({world:,} world, {config.gemma_config.mm_tokens_per_image} image, {text} text of which {shown[0].targets} "
        "targets)"
    )


def indexed_rows(
    indices: Sequence[Path], *, max_images: int | None, seed: int, token_budget: int
) -> tuple[SamplesOf, str]:
    """The fullest row of the first epoch's plan, for any token budget, and a note on it.

    The row with the most images is taken, and given as many targets as the row with the most targets has.

    Args:
        indices: Files of `theworld data index` or `theworld data shard`.
        max_images: Most images of a row.
        seed: Of the data.
        token_budget: The config's, for the note.
    """
    opened = [Index.read(path) for path in indices]
    columns = [np.concatenate([getattr(i, name)[i.eligible] for i in opened]) for name in _COLUMNS]
    lengths, targets, images = columns
    placeholders = np.concatenate([_placeholders(index) for index in opened])

    def samples_of(budget: int) -> tuple[SampleLength, ...]:
        rows = plan(
            lengths,
            images=images,
            seed=seed,
            epoch=0,
            budget=budget,
            micro_batches_per_step=1,
            max_images=max_images,
        ).bins
        fullest = max(rows, key=lambda row: (images[row].sum(), targets[row].sum()))
        most = max(int(targets[row].sum()) for row in rows)
        found = [SampleLength(int(lengths[n]), int(targets[n]), int(images[n])) for n in fullest]
        room = [int(lengths[n] - placeholders[n]) for n in fullest]
        return _with_targets(found, room, most)

    shown = samples_of(token_budget)
    return samples_of, (
        f"the fullest row of {len(lengths):,} indexed samples: {len(shown)} of {sum(s.tokens for s in shown):,} tokens "
        f"with {sum(s.images for s in shown)} images and {sum(s.targets for s in shown):,} targets"
    )


_COLUMNS = ("lengths", "targets", "num_images")


def _placeholders(index: Index) -> np.ndarray:
    taken = index.column("image_tokens") + index.column("world_tokens")
    return taken[index.eligible] + 3  # and what stands before and after the world tokens


def _with_targets(samples: list[SampleLength], room: list[int], most: int) -> tuple[SampleLength, ...]:
    """The samples with `most` targets together, if their text has room for so many."""
    missing = most - sum(sample.targets for sample in samples)
    filled = []
    for sample, text in zip(samples, room, strict=True):
        more = min(max(missing, 0), max(text - sample.targets, 0))
        filled.append(replace(sample, targets=sample.targets + more))
        missing -= more
    return tuple(filled)
