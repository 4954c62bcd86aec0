"""A row as the model is shown it: its kept turns with region names, and its image with the regions drawn."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from theworld.data.indexing.index import Index
from theworld.data.pictures.images import load_image
from theworld.data.pictures.regions import Region, RegionStyle, Turn, draw_regions, global_regions
from theworld.data.rows.row import ParsedRow, RowFormat
from theworld.data.stores import RowStore


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is encoded of a row, and what `data inspect` shows.

    Attributes:
        id: The row's name.
        turns: The kept turns, with `Region [g]` names.
        regions: The regions that these turns mention, which are those drawn.
        image: RGB, with the regions drawn on it.
    """

    id: str
    turns: tuple[Turn, ...]
    regions: tuple[Region, ...]
    image: Image.Image


@dataclass(frozen=True, kw_only=True)
class Described:
    """A row without its pixels: all that decides, besides the image file, what is drawn.

    Attributes:
        number: Row number in the source.
        id: The row's name.
        turns: The kept turns, with `Region [g]` names.
        regions: The regions that these turns mention, which are those to be drawn.
    """

    number: int
    id: str
    turns: tuple[Turn, ...]
    regions: tuple[Region, ...]


def describe_row(store: RowStore, index: Index, number: int, *, row_format: RowFormat) -> Described:
    """Read one row, but not its image.

    Args:
        store: Where rows and images come from.
        index: The index of the source; says how many turns are kept.
        number: Row number in the source.
        row_format: How the JSON of a row is understood.

    Raises:
        ValueError: The row is not what was indexed.
        OSError: It cannot be read at the moment.
    """
    row = row_format.parse(store.row_bytes(number), number=number, where=f"{store.name}, row {number}")
    return describe_parsed(row, number=number, kept_turns=int(index.kept_turns[number]))


def describe_parsed(row: ParsedRow, *, number: int, kept_turns: int) -> Described:
    """The first `kept_turns` turns of a row, with region names, and the regions that they mention.

    Args:
        row: As its format understands it.
        number: Row number in the source.
        kept_turns: At least 1.

    Raises:
        ValueError: Regions and text do not fit together.
    """
    named, regions = global_regions(row.turns, row.boxes, row.rles)
    mentioned = tuple(region for region in regions if region.first_turn < kept_turns)
    return Described(number=number, id=row.id, turns=named[:kept_turns], regions=mentioned)


def draw_row(store: RowStore, index: Index, row: Described, *, region_style: RegionStyle) -> Image.Image:
    """The image of a row, RGB, with its regions drawn on it.

    Args:
        store: Where rows and images come from.
        index: The index of the source.
        row: What `describe_row` gave.
        region_style: How regions are drawn.

    Raises:
        ValueError: The image is not what was indexed.
        OSError: It cannot be read at the moment.
    """
    name = f"{store.name}, row {row.number}, id {row.id!r}, {index.text('image', row.number)}"
    return draw_described(store.image_bytes(row.number), row, name=name, region_style=region_style)


def draw_described(image: bytes, row: Described, *, name: str, region_style: RegionStyle) -> Image.Image:
    """The decoded image, RGB, with the regions of a row drawn on it: what training and every benchmark show.

    Args:
        image: Encoded as JPEG, PNG or WebP.
        row: What `describe_row` or `describe_parsed` gave.
        name: Of row and image, for messages.
        region_style: How regions are drawn.

    Raises:
        ValueError: The image cannot be decoded, or a region does not lie in it.
    """
    return draw_regions(load_image(image, name), row.regions, style=region_style)


def show_row(
    store: RowStore, index: Index, number: int, *, row_format: RowFormat, region_style: RegionStyle = "box"
) -> Shown:
    """Read one row and draw it: `describe_row`, then `draw_row`.

    Args:
        store: Where rows and images come from.
        index: The index of the source; says how many turns are kept.
        number: Row number in the source.
        row_format: How the JSON of a row is understood.
        region_style: How regions are drawn.

    Raises:
        ValueError: The row or its image is not what was indexed.
        OSError: It cannot be read at the moment.
    """
    row = describe_row(store, index, number, row_format=row_format)
    image = draw_row(store, index, row, region_style=region_style)
    return Shown(id=row.id, turns=row.turns, regions=row.regions, image=image)
