"""The pretraining corpus: `pretrain` scenes, drawn and encoded by the package's own code, packed into a few big arrays.

Scenes of this split have random streams of their own, so none of them is in any training, validation or test set.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import text_corpus
import torch
from mentions import Facts, mention_arrays
from PIL import Image
from text_corpus import COLOUR_NUMBERS, KIND_NUMBERS, region_token_ids

from theworld.data.pictures.images import world_pixels
from theworld.data.pictures.regions import draw_regions, global_regions
from theworld.data.processor import TheWorldProcessor
from theworld.data.synthetic.base_questions import box_centre, pretrain_rows
from theworld.data.synthetic.scenes import draw_scene, encode_jpeg
from theworld.data.synthetic.truth import ObjectTruth, SceneTruth
from theworld.types import IGNORE_INDEX

MAX_REGIONS = 8


@dataclass(kw_only=True)
class CorpusArrays:
    """See `pretrain_vlm.Corpus`; `world` are the frames of the world encoder, uint8[N, 3, h, w]."""

    input_ids: np.ndarray
    labels: np.ndarray
    token_type_ids: np.ndarray
    length: np.ndarray
    images: np.ndarray
    kinds: np.ndarray
    colours: np.ndarray
    enclosed: np.ndarray
    mention_at: np.ndarray
    mention_facts: np.ndarray
    world: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How scenes become samples."""

    tokenizer_directory: str
    seed: int
    image_size: int
    rows_per_scene: int
    max_turns: int
    max_seq_length: int
    world_image_size: int
    patches_per_side: int


def build(recipe: Recipe, numbers: range, *, workers: int) -> tuple[CorpusArrays, list[list[str]]]:
    """Draws scenes `numbers` in `workers` processes; returns the arrays and the question texts of every sample."""
    parts = [(recipe, numbers[start :: workers * 4]) for start in range(workers * 4)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        results = list(pool.map(_build_part, *zip(*parts, strict=True)))
    arrays = CorpusArrays(
        **{f.name: np.concatenate([getattr(part, f.name) for part, _ in results]) for f in fields(CorpusArrays)}
    )
    return arrays, [asked for _, questions in results for asked in questions]


def texts(seed: int, numbers: range, image_size: int) -> Iterator[str]:
    """Everything the tokenizer learns from: base questions and answers of some scenes, and the 24 categories' too.

    The categories are here for their *words* only (a tokenizer that cannot spell "taller" would be unfair); the model
    is never trained on them.
    """
    from theworld.data.synthetic.questions import QuestionDeck
    from theworld.data.synthetic.render import SceneRenderer
    from theworld.data.synthetic.rows import training_row

    renderer = SceneRenderer(image_size)
    deck = QuestionDeck(None)
    yield "user\n\n\nmodel\n"
    for number in numbers:
        _, scene = draw_scene(renderer, seed=seed, split="pretrain", number=number)
        rng = np.random.default_rng((seed, number, 7))
        row = training_row(scene, deck, rng, turns=12)
        for one in [*pretrain_rows(scene, rng, num_rows=4), *([row] if row is not None else [])]:
            turns, _ = global_regions(_turns(one), [tuple(box) for box in one["bbox"]])
            yield from (text for turn in turns for text in turn)
    renderer.close()
    yield from text_corpus.texts(seed, range(20 * len(numbers)))


def _build_part(recipe: Recipe, numbers: Iterable[int]) -> tuple[CorpusArrays, list[list[str]]]:
    from theworld.data.synthetic.render import SceneRenderer  # each process has a renderer of its own

    torch.set_num_threads(1)
    processor = TheWorldProcessor.from_pretrained(
        recipe.tokenizer_directory, num_world_tokens=1, world_image_size=recipe.world_image_size, enable_world=False
    )
    region_ids = region_token_ids(processor.tokenizer)
    renderer = SceneRenderer(recipe.image_size)
    columns: dict[str, list[np.ndarray]] = {f.name: [] for f in fields(CorpusArrays)}
    questions = []
    for number in numbers:
        rgb, scene = draw_scene(renderer, seed=recipe.seed, split="pretrain", number=number)
        image = Image.open(io.BytesIO(encode_jpeg(rgb))).convert("RGB")
        rng = np.random.default_rng((recipe.seed, number, 3))
        for _ in range(recipe.rows_per_scene):
            (row,) = pretrain_rows(scene, rng, turns_per_row=int(rng.integers(1, recipe.max_turns + 1)))
            turns, regions = global_regions(_turns(row), [tuple(box) for box in row["bbox"]])
            marked = draw_regions(image, regions)
            sample = processor.encode(turns, marked, row["id"], max_seq_length=recipe.max_seq_length)
            columns["input_ids"].append(_fixed(sample.input_ids, recipe.max_seq_length, 0))
            columns["labels"].append(_fixed(sample.labels, recipe.max_seq_length, IGNORE_INDEX))
            columns["token_type_ids"].append(_fixed(sample.token_type_ids, recipe.max_seq_length, 0).astype(np.uint8))
            columns["length"].append(np.int32(len(sample.input_ids)))
            facts = {r.index: _facts(scene, r.box) for r in regions}
            mentions = mention_arrays(sample.input_ids.numpy(), region_ids, facts, skip=0)
            columns["mention_at"].append(mentions[0])
            columns["mention_facts"].append(mentions[1])
            columns["images"].append(_bytes(sample.pixel_values[0]))
            columns["world"].append(
                _bytes(world_pixels(marked if rng.random() < 0.5 else image, recipe.world_image_size))
            )
            kinds, colours, enclosed = _dense_truth(scene, [r.box for r in regions], recipe.patches_per_side)
            columns["kinds"].append(kinds)
            columns["colours"].append(colours)
            columns["enclosed"].append(enclosed)
            kept = processor.fit_turns(turns, recipe.max_seq_length)
            questions.append([question for question, _ in turns[:kept]])
    renderer.close()
    return CorpusArrays(**{name: np.stack(column) for name, column in columns.items()}), questions


def _turns(row: dict) -> list[tuple[str, str]]:
    values = [message["value"].removeprefix("<image>\n") for message in row["conversations"]]
    return list(zip(values[0::2], values[1::2], strict=True))


def _fixed(values: torch.Tensor, length: int, fill: int) -> np.ndarray:
    out = np.full(length, fill, dtype=np.int16)
    out[: len(values)] = values.numpy()
    return out


def _facts(scene: SceneTruth, box: tuple[float, ...]) -> Facts:
    thing = next(o for o in scene.objects if tuple(map(float, o.box)) == tuple(map(float, box)))
    x, y = box_centre(thing, scene.image_size)
    return Facts(
        kind=KIND_NUMBERS[thing.kind],
        colour=COLOUR_NUMBERS[thing.colour],
        row=int(5 * y),
        column=int(5 * x),
        coarse_row=int(3 * y),
        coarse_column=int(3 * x),
        x=int(100 * x),
        y=int(100 * y),
    )


def _bytes(pixels: torch.Tensor) -> np.ndarray:
    """float32 in [-1, 1] that came from bytes → those bytes, exactly."""
    return ((pixels + 1) * 127.5).round().to(torch.uint8).numpy()


def _dense_truth(
    scene: SceneTruth, boxes: list[tuple[float, ...]], side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kind and colour at the middle of every patch, and which drawn regions enclose it."""
    middles = ((np.arange(side) + 0.5) * scene.image_size / side).astype(int)
    kinds = np.zeros((side, side), dtype=np.uint8)
    colours = np.zeros((side, side), dtype=np.uint8)
    thing: ObjectTruth
    for thing in scene.objects:
        seen = thing.mask[np.ix_(middles, middles)]
        kinds[seen] = KIND_NUMBERS[thing.kind]
        colours[seen] = COLOUR_NUMBERS[thing.colour]
    enclosed = np.zeros((MAX_REGIONS, side, side), dtype=bool)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        columns, rows = (middles >= x1) & (middles < x2), (middles >= y1) & (middles < y2)
        enclosed[number] = rows[:, None] & columns[None]
    return kinds, colours, enclosed
