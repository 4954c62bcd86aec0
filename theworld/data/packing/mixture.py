"""Several sources as one: how often a sample of each is seen, and how much its loss counts.

S samples of all sources, numbered through: the first source's first, then the second's, and so on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from theworld.data.features.store import FeatureStore
from theworld.data.indexing.index import Index
from theworld.data.processor import TheWorldProcessor
from theworld.types import Sample

_Ints = NDArray[np.int64]

MAX_CYCLE = 100
"""Most epochs after which fractional shares must come round: each of them is packed once, to find the rows needed."""

_GOLDEN = (math.sqrt(5) - 1) / 2


class Samples(Protocol):
    """What a source must offer; `theworld.data.samples.OSDSamples` does.

    Attributes:
        index: Their index, whose hash a resumed run must find unchanged.
        processor: What makes tensors of them.
        lengths: int64[S], tokens.
        targets: int64[S], target tokens.
        num_images: int64[S].
        groups: int64[S], the shard of each, or None outside shards.
        features: Caches of what frozen towers make of its images, by the field of `Sample` that holds it.
    """

    index: Index
    processor: TheWorldProcessor
    lengths: _Ints
    targets: _Ints
    num_images: _Ints
    groups: _Ints | None
    features: Mapping[str, FeatureStore]

    def __len__(self) -> int: ...

    def read(self, number: int, *, cached: Collection[str] = ()) -> Sample:
        """The sample, with these features in place of pixels; ValueError or OSError if it cannot be read."""

    def id(self, number: int) -> str:
        """Its name, without reading it."""


@dataclass(frozen=True)
class Source:
    """One source of a mixture.

    Args:
        name: For messages, and before the ids of its samples if there are several sources.
        samples: What is in it.
        share: How often each of its samples is seen in an epoch. 0.5: half of them, the other half in the next epoch;
            2: each one twice. A fraction with a small denominator.
        loss_weight: What a target token counts in the loss, beside those of other sources.
    """

    name: str
    samples: Samples
    share: float = 1.0
    loss_weight: float = 1.0

    def __post_init__(self) -> None:
        for what, value in (("share", self.share), ("loss_weight", self.loss_weight)):
            if not 0 < value < math.inf:
                raise ValueError(f"source {self.name!r}: found {what}={value}, expected more than 0; or leave it out.")
        if abs(self.fraction - self.share) > 1e-9:
            raise ValueError(
                f"source {self.name!r}: found share={self.share}, expected a fraction with a denominator of at most "
                f"{MAX_CYCLE}, such as {float(self.fraction):g}; choose one."
            )

    @property
    def fraction(self) -> Fraction:
        """The share as a fraction."""
        return Fraction(self.share).limit_denominator(MAX_CYCLE)


class Mixture(Dataset[Sample]):
    """All sources under one numbering.

    Args:
        sources: At least one, with different names and the same tokenizer.

    Attributes:
        lengths: int64[S], tokens.
        targets: int64[S], target tokens.
        num_images: int64[S].
        groups: int64[S], the shard of each, numbered through; None if a source has no shards.
        weights: float64[S], loss weight of a target token; None if all are 1.
        cycle: Epochs after which the same samples are seen again.
        features: Which features are cached (for every source, or for none), and one entry of zeros of each.
    """

    def __init__(self, sources: Sequence[Source]):
        _check(sources)
        self.sources = tuple(sources)
        self.processor = sources[0].samples.processor
        self.lengths = np.concatenate([source.samples.lengths for source in sources])
        self.targets = np.concatenate([source.samples.targets for source in sources])
        self.num_images = np.concatenate([source.samples.num_images for source in sources])
        self.groups = _groups(sources)
        self.weights: NDArray[np.float64] | None = None
        if any(source.loss_weight != 1 for source in sources):
            self.weights = np.concatenate([np.full(len(s.samples), s.loss_weight) for s in sources])
        self.features = _features(sources)
        self.cycle = math.lcm(*(source.fraction.denominator for source in sources))
        self._ends = np.cumsum([len(source.samples) for source in sources])

    def __len__(self) -> int:
        """Samples of all sources."""
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> Sample:
        """The sample with its pixels."""
        return self.read(number)

    def read(self, number: int, *, cached: Collection[str] = ()) -> Sample:
        """The sample, with the features that `cached` names in place of pixels.

        Its id begins with the source's name if there are several.
        """
        source, own = self._locate(number)
        sample = source.samples.read(own, cached=cached)
        return sample if len(self.sources) == 1 else replace(sample, id=f"{source.name}/{sample.id}")

    def id(self, number: int) -> str:
        """The id that the sample has, without reading it."""
        source, own = self._locate(number)
        name = source.samples.id(own)
        return name if len(self.sources) == 1 else f"{source.name}/{name}"

    def loss_weight(self, number: int) -> float:
        """What a target token of the sample counts."""
        return 1.0 if self.weights is None else float(self.weights[number])

    def epoch(self, number: int, *, seed: int) -> _Ints:
        """Numbers of the samples seen in an epoch, ascending, repeated as often as they are seen.

        Args:
            number: Of the epoch.
            seed: Seed of the draw that fractional shares need.
        """
        seen = []
        for place, (source, end) in enumerate(zip(self.sources, self._ends, strict=True)):
            lengths = source.samples.lengths
            times = _times(lengths, source.fraction, number, np.random.default_rng((seed, place, 2)))
            seen.append(np.repeat(np.arange(end - len(lengths), end), times))
        return np.concatenate(seen)

    def fingerprint(self) -> dict[str, dict[str, str | float]]:
        """By source: what a resumed run must find unchanged."""
        return {
            source.name: {
                "index_sha256": source.samples.index.sha256,
                "share": float(source.share),
                "loss_weight": float(source.loss_weight),
            }
            for source in self.sources
        }

    def _locate(self, number: int) -> tuple[Source, int]:
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} asked for, the mixture has {len(self)}.")
        which = int(np.searchsorted(self._ends, number, side="right"))
        return self.sources[which], number - int(self._ends[which]) + len(self.sources[which].samples)


def as_mixture(samples: Samples | Mixture) -> Mixture:
    """A mixture of one source, unless it is one already."""
    return samples if isinstance(samples, Mixture) else Mixture([Source(samples.index.name, samples)])


def _check(sources: Sequence[Source]) -> None:
    if not sources:
        raise ValueError("found no sources, expected at least one; add one.")
    names = Counter(source.name for source in sources)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"found several sources of the name {repeated[0]!r}, expected different names; rename them.")
    for source in sources:
        if len(source.samples) == 0:
            raise ValueError(f"source {source.name!r} has no samples; leave it out.")
    first = sources[0].samples.processor
    for source in sources[1:]:
        processor = source.samples.processor
        if (processor.tokenizer.get_vocab(), processor.fixed_tokens) != (
            first.tokenizer.get_vocab(),
            first.fixed_tokens,
        ):
            raise ValueError(
                f"sources {sources[0].name!r} and {source.name!r} have different tokenizers or placeholders, expected "
                "one processor for all; make the index of both with the same base and settings."
            )
    cycle = math.lcm(*(source.fraction.denominator for source in sources))
    if cycle > MAX_CYCLE:
        shares = {source.name: source.share for source in sources}
        raise ValueError(
            f"the shares {shares} come round after {cycle} epochs, expected at most {MAX_CYCLE}; choose fractions with "
            "small denominators in common."
        )


def _features(sources: Sequence[Source]) -> dict[str, Tensor]:
    """Zeros of each feature that is cached; all sources must have the same ones, for a row may hold any of them."""
    zeros = [{name: store.zeros() for name, store in source.samples.features.items()} for source in sources]
    for source, found in zip(sources[1:], zeros[1:], strict=True):
        shapes = [{name: (entry.shape, entry.dtype) for name, entry in made.items()} for made in (zeros[0], found)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"found the cached features {shapes[0]} for source {sources[0].name!r} and {shapes[1]} for "
                f"{source.name!r}, expected the same; a row may mix their samples: cache the features of every source "
                "(`theworld data cache`), or of none."
            )
    return zeros[0]


def _groups(sources: Sequence[Source]) -> _Ints | None:
    """Shards of all sources, numbered through."""
    numbered, first = [], 0
    for source in sources:
        groups = source.samples.groups
        if groups is None:
            return None
        numbered.append(groups + first)
        first += int(groups.max()) + 1
    return np.concatenate(numbered)


def _times(lengths: _Ints, share: Fraction, epoch: int, rng: np.random.Generator) -> _Ints:
    """int64[S]: how often each sample is seen in an epoch, with the same `rng` for all epochs.

    A sample has been seen floor(epochs x share + phase / S) times. Phases are a permutation of 0 to S - 1 in which any
    stretch takes samples evenly from short to long, so that all epochs weigh alike; which of the samples of about one
    length come first is random.
    """
    count = len(lengths)
    by_length = np.lexsort((rng.random(count), lengths))
    turns = np.argsort((np.arange(count) * _GOLDEN + rng.random()) % 1.0)
    phases = np.empty(count, dtype=np.int64)
    phases[by_length[turns]] = np.arange(count)
    before, after = (
        (epochs * share.numerator * count + phases * share.denominator) // (share.denominator * count)
        for epochs in (epoch, epoch + 1)
    )
    return after - before
