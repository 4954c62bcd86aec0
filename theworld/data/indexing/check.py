"""One row's JSON to its entry in the index: everything that could go wrong later is looked for here, once.

Each fault and what becomes of it is told by its test, `tests/data/rows/test_faults.py`.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import lru_cache

from theworld.data.indexing.entries import Entry
from theworld.data.pictures.images import check_image
from theworld.data.pictures.masks import check_rle, check_rle_size
from theworld.data.pictures.regions import Region, RegionStyle, Turn, check_box, global_regions
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.faults import (
    BAD_CONVERSATION,
    BAD_MASK,
    BAD_REGION,
    MALFORMED,
    NO_TARGETS,
    TOO_LONG,
    RowError,
)
from theworld.data.rows.row import ParsedRow, RowFormat
from theworld.data.stores import ImageFolder

_REMEMBERED_IMAGES = 4096


@dataclass(frozen=True, slots=True)
class _ImageFacts:
    bytes: int
    sha256: str
    size: tuple[int, int]
    fault: tuple[str, str] | None


class RowChecker:
    """Makes entries.

    Args:
        images: Where the images are.
        processor: Counts tokens.
        row_format: How a row is understood.
        max_seq_length: Longest sample, in tokens. Whole trailing turns beyond it are dropped.
        region_style: `mask` checks every mask's runs too; `box` only that masks have the image's size.
        decode_images: Read every image to its end, not only its header.
    """

    def __init__(
        self,
        images: ImageFolder,
        processor: TheWorldProcessor,
        *,
        row_format: RowFormat,
        max_seq_length: int,
        region_style: RegionStyle,
        decode_images: bool,
    ):
        self._images = images
        self._processor = processor
        self._row_format = row_format
        self._max_seq_length = max_seq_length
        self._region_style = region_style
        self._decode_images = decode_images
        self._image_facts = lru_cache(_REMEMBERED_IMAGES)(self._read_image_facts)

    def entry(self, raw: bytes, *, number: int, offset: int, where: str) -> Entry:
        """Check one row.

        Args:
            raw: The JSON of the row.
            number: Row number in the file.
            offset: First byte of `raw` in the file.
            where: Row and byte, for verdicts.

        Returns:
            Its entry; `verdict` is `ok` or begins with one of `theworld.data.rows.faults.CODES`.
        """
        entry = Entry(offset=offset, size=len(raw), row_crc32=zlib.crc32(raw))
        try:
            parsed = self._parsed(raw, number, where)
            entry.id, entry.turns = parsed.id, len(parsed.turns)
            where = f"{where}, id {parsed.id!r}: "
            self._check(entry, parsed)
        except RowError as error:
            detail = str(error)
            entry.verdict = f"{error.code}: {detail if detail.startswith(where) else where + detail}"
        return entry

    def _parsed(self, raw: bytes, number: int, where: str) -> ParsedRow:
        try:
            return self._row_format.parse(raw, number=number, where=where)
        except RowError:
            raise
        except ValueError as error:
            raise RowError(MALFORMED, str(error)) from error

    def _check(self, entry: Entry, parsed: ParsedRow) -> None:
        entry.image = self._images.find(parsed.filename)
        facts = self._image_facts(entry.image)
        entry.image_bytes, entry.image_sha256 = facts.bytes, facts.sha256
        if facts.fault is not None:
            raise RowError(*facts.fault)
        entry.width, entry.height = facts.size
        turns, regions = _named(parsed)
        entry.regions = len(regions)
        self._check_regions(regions, facts.size)
        self._count(entry, turns)

    def _read_image_facts(self, name: str) -> _ImageFacts:
        data, size, fault = b"", (0, 0), None
        try:
            data = self._images.read(name)
            size = check_image(data, name, decode=self._decode_images)
        except RowError as error:
            fault = error.code, str(error)
        return _ImageFacts(len(data), hashlib.sha256(data).hexdigest() if data else "", size, fault)

    def _check_regions(self, regions: tuple[Region, ...], size: tuple[int, int]) -> None:
        code = BAD_REGION
        try:
            for region in regions:
                check_box(region.box, size)
            code = BAD_MASK
            for region in regions:
                if region.rle is not None:
                    (check_rle if self._region_style == "mask" else check_rle_size)(region.rle, size)
                elif self._region_style == "mask":
                    raise ValueError("region style 'mask' needs `rle`, which the row lacks; use style 'box'.")
        except ValueError as error:
            raise RowError(code, str(error)) from error

    def _count(self, entry: Entry, turns: tuple[Turn, ...]) -> None:
        try:
            per_turn = self._processor.count_tokens(turns)
        except ValueError as error:
            raise RowError(BAD_CONVERSATION, str(error)) from error
        kept = sum(length <= self._max_seq_length for length, _ in per_turn)
        if not kept:
            raise RowError(
                TOO_LONG,
                f"the first turn needs {per_turn[0][0]} tokens, expected at most max_seq_length="
                f"{self._max_seq_length}; raise it or use fewer world tokens.",
            )
        length, targets = per_turn[kept - 1]
        if targets == 0:
            raise RowError(NO_TARGETS, "no answer has a token; remove the row.")
        entry.kept_turns, entry.num_images, entry.target_tokens = kept, 1, targets
        entry.image_tokens = self._processor.num_image_tokens
        entry.world_tokens = self._processor.num_world_tokens
        entry.text_tokens = length - entry.image_tokens - entry.world_tokens


def _named(parsed: ParsedRow) -> tuple[tuple[Turn, ...], tuple[Region, ...]]:
    try:
        return global_regions(parsed.turns, parsed.boxes, parsed.rles)
    except ValueError as error:
        raise RowError(BAD_REGION, str(error)) from error
