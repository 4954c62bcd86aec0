"""What a benchmark is: questions that can be listed without pixels, and the encoded image of each.

    row on disk → ParsedRow → describe_parsed → draw_described → TheWorldProcessor.encode_prompt → Sample

Whatever its schema, a row becomes the `ParsedRow` that training rows become, and goes through the functions that
training rows go through; so the model sees a benchmark's question exactly as it would see it in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from PIL import Image

from theworld.data.pictures.images import check_image
from theworld.data.pictures.masks import check_rle, check_rle_size
from theworld.data.pictures.regions import RegionStyle, check_box
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.faults import DUPLICATE_ID, RowError
from theworld.data.rows.row import ParsedRow
from theworld.data.shown import Shown, describe_parsed, draw_described
from theworld.types import Question, Sample

Scoring = Literal["spatial", "letter", "truth"]
"""How answers are scored: SpatialRGPT-Bench's rules, the letter of a choice, or true against false."""

SCORING: dict[str, Scoring] = {
    "srgpt": "spatial",
    "osd": "spatial",
    "vsr": "truth",
    "blink": "letter",
    "cvbench": "letter",
}
"""Benchmarks by name: how their answers are scored, by `theworld evaluate` and by `theworld score` alike."""

_Row = TypeVar("_Row")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question, without its pixels.

    Attributes:
        row: As training would read it: one turn, with its boxes and masks.
        number: Row number in its file.
        image: The image as the benchmark names it.
        size: (width, height) that the row says its image has, in whose pixels its boxes are; None if it does not say.
        choices: What can be answered, in the order of their letters; none for a free answer.
        group: What the benchmark's own number averages over, such as CV-Bench's `ADE20K`; its category by default.
    """

    row: ParsedRow
    number: int
    image: str
    size: tuple[int, int] | None = None
    choices: tuple[str, ...] = ()
    group: str = ""

    @property
    def question(self) -> Question:
        """The question with region names, and what is needed to score its answer."""
        ((asked, answer),) = describe_parsed(self.row, number=self.number, kept_turns=1).turns
        assert self.row.qa_info is not None, "every loader checks it"
        qa_type, qa_category = self.row.qa_info
        image_id = str(Path(self.image).with_suffix(""))
        return Question(
            id=self.row.id, image_id=image_id, question=asked, answer=answer, qa_type=qa_type, qa_category=qa_category
        )


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """A row that cannot be asked.

    Attributes:
        number: Row number in its file.
        reason: File, row, id, what was found, what was expected.
    """

    number: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Questions and images of one benchmark; each loader makes one.

    Attributes:
        name: As on the command line, in predictions and in tables.
        items: All questions, in the order of the files.
        excluded: Rows that were left out because `skip_malformed` allows it.
        sources: The files of the rows, by name: their sha256.
        place: File and row of a row number, for messages.
        read_image: The encoded image of a question; raises ValueError if it is missing or too large.
    """

    name: str
    items: tuple[Item, ...]
    excluded: tuple[Excluded, ...]
    sources: dict[str, str]
    place: Callable[[int], str]
    read_image: Callable[[Item], bytes]

    @property
    def scoring(self) -> Scoring:
        """How its answers are scored."""
        return SCORING[self.name]


def show(benchmark: Benchmark, item: Item, *, region_style: RegionStyle = "box") -> Shown:
    """A question as the model is shown it.

    Args:
        benchmark: That the question is of.
        item: The question.
        region_style: `box` outlines regions, `mask` tints them.

    Raises:
        ValueError: The image is missing or damaged, or a region does not lie in it.
    """
    row = describe_parsed(item.row, number=item.number, kept_turns=1)
    image = _drawn(benchmark, item, region_style)
    return Shown(id=row.id, turns=row.turns, regions=row.regions, image=image)


def prompt(
    benchmark: Benchmark, item: Item, processor: TheWorldProcessor, *, region_style: RegionStyle = "box"
) -> Sample:
    """A question as a prompt that ends where the answer begins; raises as `show` does."""
    shown = show(benchmark, item, region_style=region_style)
    return processor.encode_prompt(shown.turns, shown.image, shown.id)


def check_items(
    benchmark: Benchmark, processor: TheWorldProcessor, *, region_style: RegionStyle, on_checked: Callable[[], object]
) -> dict[str, str]:
    """Read every question and image header before the first answer is generated.

    Args:
        benchmark: To check.
        processor: Tokenises every question, which finds control tokens of the model in it.
        region_style: With `mask`, every mask is checked too.
        on_checked: Called after each question, for a progress bar.

    Returns:
        Why a question cannot be asked, by its id; empty if all can.
    """
    faults = {}
    for item in benchmark.items:
        try:
            _check(benchmark, item, processor, region_style)
        except ValueError as error:
            faults[item.row.id] = f"{benchmark.place(item.number)}, id {item.row.id!r}: {error}"
        on_checked()
    return faults


def collect(
    rows: Iterable[_Row],
    parse: Callable[[_Row, int], Item | None],
    *,
    skip_malformed: bool,
    place: Callable[[int], str],
) -> tuple[tuple[Item, ...], tuple[Excluded, ...]]:
    """The items of rows, each with an id of its own, and the rows that are left out.

    Args:
        rows: In the order of the file.
        parse: Makes an item of a row and its number, or None where the row is not asked for; raises `RowError` with
            file, row and id.
        skip_malformed: False raises the first row's error; True excludes such rows.
        place: File and row of a row number, for messages.

    Raises:
        RowError: A row, unless skipped.
        ValueError: No row is left.
    """
    items: list[Item] = []
    excluded: list[Excluded] = []
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        try:
            item = parse(row, number)
            if item is None:
                continue
            if item.row.id in first:
                raise RowError(
                    DUPLICATE_ID,
                    f"{place(number)}: id {item.row.id!r} is that of row {first[item.row.id]}, expected one id a "
                    "question (answers of different models are compared by id); rename one.",
                )
        except RowError as error:
            if not skip_malformed:
                raise
            excluded.append(Excluded(number=number, reason=str(error)))
            continue
        first[item.row.id] = number
        items.append(item)
    if not items:
        reason = f"the first because {excluded[0].reason}" if excluded else "none of them was asked for"
        raise ValueError(f"{place(0)}: found no question in {len(excluded)} faulty rows, expected some; {reason}")
    return tuple(items), tuple(excluded)


def _check(benchmark: Benchmark, item: Item, processor: TheWorldProcessor, region_style: RegionStyle) -> None:
    row = describe_parsed(item.row, number=item.number, kept_turns=1)
    processor.count_tokens(row.turns)
    size = check_image(benchmark.read_image(item), item.image, decode=False)
    if item.size not in (None, size):
        raise ValueError(
            f"{item.image} has (width, height) {size}, expected {item.size} as the row says: its boxes are in other "
            "pixels; use the image that the benchmark was made from."
        )
    for region in row.regions:
        check_box(region.box, size)
        if region.rle is not None:
            (check_rle if region_style == "mask" else check_rle_size)(region.rle, size)
        elif region_style == "mask":
            raise ValueError("region style 'mask' needs `rle`, which the row lacks; use style 'box'.")


def _drawn(benchmark: Benchmark, item: Item, region_style: RegionStyle) -> Image.Image:
    row = describe_parsed(item.row, number=item.number, kept_turns=1)
    name = f"{benchmark.place(item.number)}, id {item.row.id!r}, {item.image}"
    return draw_described(benchmark.read_image(item), row, name=name, region_style=region_style)
