"""What every row of a file will weigh in tokens, found once before training; and which rows cannot be used, and why.

The plan is made from these lengths, so nothing is dropped, cut or discovered later in silence.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from theworld.data.images import image_size
from theworld.data.masks import check_rle
from theworld.data.osd import OSDRow, OSDRows
from theworld.data.processor import TheWorldProcessor
from theworld.data.regions import Region, RegionStyle, Turn, check_box, global_regions

OK = "ok"
TOO_LONG = "first turn longer than max_seq_length"
MALFORMED = "malformed"

_PROGRESS_FROM = 2000


@dataclass(frozen=True, kw_only=True)
class Index:
    """One entry a row of the file; `eligible` rows are the samples.

    Attributes:
        name: Name of the split, for messages.
        max_seq_length: Longest sample allowed, in tokens.
        lengths: int64[R], tokens of the kept turns with every placeholder; 0 for an excluded row.
        targets: int64[R], target tokens of the kept turns.
        num_images: int64[R], images of the row (1, or 0 for an excluded row).
        num_turns: int64[R], turns of the row.
        kept_turns: int64[R], whole turns kept, from the first on.
        verdicts: `ok`, or why the row is excluded.
        eligible: int64[S], row numbers of the samples.
        sha256: Hash of names, texts, boxes and lengths of the rows that could be read, and of every row's counts:
            what a resumed run must find unchanged.
    """

    name: str
    max_seq_length: int
    lengths: NDArray[np.int64]
    targets: NDArray[np.int64]
    num_images: NDArray[np.int64]
    num_turns: NDArray[np.int64]
    kept_turns: NDArray[np.int64]
    verdicts: tuple[str, ...]
    eligible: NDArray[np.int64]
    sha256: str

    def __len__(self) -> int:
        """Number of samples (eligible rows)."""
        return len(self.eligible)

    def summary(self) -> str:
        """Rows, samples, dropped turns and exclusions by reason, in one line."""
        cut = (self.kept_turns < self.num_turns) & (self.kept_turns > 0)
        dropped = int((self.num_turns - self.kept_turns)[cut].sum())
        parts = [
            f"{self.name}: {len(self.verdicts)} rows, {len(self)} ok",
            f"{dropped} trailing turns dropped from {int(cut.sum())} rows (max_seq_length {self.max_seq_length})",
        ]
        if len(self):
            lengths = self.lengths[self.eligible]
            parts.append(f"{lengths.min()}-{lengths.max()} tokens, {lengths.sum()} in all")
            parts.append(f"{self.targets.sum()} target tokens")
        excluded = Counter(verdict.split(":")[0] for verdict in self.verdicts if verdict != OK)
        parts += [f"{count} excluded ({reason})" for reason, count in sorted(excluded.items())]
        return ", ".join(parts)


def build_index(
    rows: OSDRows,
    processor: TheWorldProcessor,
    *,
    max_seq_length: int,
    name: str,
    region_style: RegionStyle = "box",
    skip_malformed: bool = False,
    progress: bool = True,
) -> Index:
    """Read and tokenise every row once; image headers are read, images are not decoded.

    Args:
        rows: The file.
        processor: Gives lengths; its settings are part of what is counted.
        max_seq_length: Longest sample, in tokens. Whole trailing turns beyond it are dropped.
        name: Name of the split, for messages.
        region_style: With `mask`, every region's mask is checked too.
        skip_malformed: False raises the first malformed row's error; True excludes such rows and counts them.
        progress: Show a progress bar when there are more than 2000 rows.

    Raises:
        ValueError: A malformed row (unless skipped), or no row is left.
    """
    counts = np.zeros((5, len(rows)), dtype=np.int64)
    verdicts: list[str] = []
    digest = hashlib.sha256()
    numbers: Iterable[int] = range(len(rows))
    if progress and len(rows) > _PROGRESS_FROM:
        numbers = track(numbers, description=f"indexing {name}")
    for number in numbers:
        try:
            row = rows[number]
            turns, regions = _checked_regions(row, region_style, rows)
            per_turn = _count(row, turns, processor, rows)
        except ValueError as error:
            if not skip_malformed:
                raise
            verdicts.append(f"{MALFORMED}: {error}")
            continue
        kept = sum(length <= max_seq_length for length, _ in per_turn)
        counts[3:, number] = len(turns), kept
        if kept:
            counts[:3, number] = *per_turn[kept - 1], 1
        verdicts.append(OK if kept else f"{TOO_LONG}: {per_turn[0][0]} tokens")
        digest.update(repr((row.id, turns, [region.box for region in regions], per_turn)).encode())
    eligible = np.flatnonzero(counts[4] > 0)
    if not len(eligible):
        raise ValueError(
            f"{name}: none of the {len(rows)} rows of {rows.path} can be used, the first because: {verdicts[0]}; "
            f"repair the rows, or raise max_seq_length={max_seq_length}."
        )
    digest.update(counts.tobytes())
    return Index(
        name=name,
        max_seq_length=max_seq_length,
        lengths=counts[0],
        targets=counts[1],
        num_images=counts[2],
        num_turns=counts[3],
        kept_turns=counts[4],
        verdicts=tuple(verdicts),
        eligible=eligible,
        sha256=digest.hexdigest(),
    )


def _checked_regions(row: OSDRow, style: RegionStyle, rows: OSDRows) -> tuple[tuple[Turn, ...], tuple[Region, ...]]:
    """Names and regions, refused now if they could not be drawn later."""
    try:
        turns, regions = global_regions(row.turns, row.boxes, row.rles)
        size = image_size(row.image_path)
        for region in regions:
            check_box(region.box, size)
            if style == "mask":
                if region.rle is None:
                    raise ValueError("region style 'mask' needs `rle`, which the row lacks; use style 'box'.")
                check_rle(region.rle, size)
    except ValueError as error:
        raise ValueError(f"{rows.path}, row {row.index}, id {row.id!r}: {error}") from error
    return turns, regions


def _count(row: OSDRow, turns: tuple[Turn, ...], processor: TheWorldProcessor, rows: OSDRows) -> list[tuple[int, int]]:
    try:
        return processor.count_tokens(turns)
    except ValueError as error:
        raise ValueError(f"{rows.path}, row {row.index}, id {row.id!r}: {error}") from error
