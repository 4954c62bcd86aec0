"""Samples of a source by number, and the prompts of its test rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from theworld.data.features.drawings import drawing_key
from theworld.data.features.store import FeatureStore
from theworld.data.indexing.index import Index
from theworld.data.packing.collator import pad
from theworld.data.pictures.regions import RegionStyle, global_regions
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.osd import OSDFormat
from theworld.data.rows.row import RowFormat
from theworld.data.shown import Described, describe_row, draw_row, show_row
from theworld.data.stores import RowStore
from theworld.types import FEATURES, IGNORE_INDEX, PromptBatch, Question, Sample


class OSDSamples(Dataset[Sample]):
    """The eligible rows of a source as samples; sample `i` is row `index.eligible[i]`.

    Args:
        store: Where rows and images come from.
        index: The index of the source, made with the same processor.
        processor: Text and images to tensors.
        row_format: How the JSON of a row is understood; OSD's by default.
        region_style: How regions are drawn.
        features: Caches of what frozen towers make of the images, by the field of `Sample` that holds it.

    Attributes:
        lengths: int64[S], tokens of each sample.
        targets: int64[S], target tokens of each sample.
        num_images: int64[S], images of each sample.
        groups: int64[S], number of the tar that holds each sample, or None outside tars.
    """

    def __init__(
        self,
        store: RowStore,
        *,
        index: Index,
        processor: TheWorldProcessor,
        row_format: RowFormat | None = None,
        region_style: RegionStyle = "box",
        features: Mapping[str, FeatureStore] | None = None,
    ):
        self.store = store
        self.index = index
        self.processor = processor
        self.row_format: RowFormat = row_format or OSDFormat()
        self.region_style = region_style
        self.features: Mapping[str, FeatureStore] = features or {}
        self.lengths: NDArray[np.int64] = index.lengths[index.eligible]
        self.targets: NDArray[np.int64] = index.targets[index.eligible]
        self.num_images: NDArray[np.int64] = index.num_images[index.eligible]
        self.groups: NDArray[np.int64] | None = index.column("shard")[index.eligible] if index.header.shards else None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        """The sample with its pixels; raises as `read` does."""
        return self.read(number)

    def read(self, number: int, *, cached: Collection[str] = ()) -> Sample:
        """The sample, checked against what the index counted.

        Args:
            number: Of the sample.
            cached: Which of `features` to read in place of pixels. If no tower needs pixels the image is not even read.

        Raises:
            ValueError: The row, its image or its cached features are not what was indexed.
            OSError: They cannot be read at the moment.
        """
        row = describe_row(self.store, self.index, int(self.index.eligible[number]), row_format=self.row_format)
        sample = self.processor.encode(row.turns, None, row.id, max_seq_length=self.index.max_seq_length)
        found = len(sample.input_ids), int((sample.labels != IGNORE_INDEX).sum())
        expected = int(self.lengths[number]), int(self.targets[number])
        if found != expected:
            raise ValueError(
                f"{self._where(row.number)}, id {row.id!r}: found {found} (tokens, targets), expected "
                f"{expected} from the index; the file or the tokenizer changed since it was indexed, start again."
            )
        return replace(sample, **self._seen(row, cached))

    def _seen(self, row: Described, cached: Collection[str]) -> dict[str, Any]:
        """Pixels of the towers that run, and features of those that do not."""
        towers = {"image_features": self.processor.pixels}
        if self.processor.enable_world:
            towers["world_latents"] = self.processor.world_pixels
        seen: dict[str, Any] = {}
        if cached:
            key = drawing_key(self.index.text("image_sha256", row.number), row.regions, self.region_style)
            seen = {name: self.features[name].read(row.number, key)[None] for name in towers if name in cached}
        live = [name for name in towers if name not in cached]
        if live:
            image = draw_row(self.store, self.index, row, region_style=self.region_style)
            seen |= {FEATURES[name]: towers[name](image) for name in live}
        return seen

    def id(self, number: int) -> str:
        """The sample's name, unique in its source."""
        return self.index.text("id", int(self.index.eligible[number]))

    def question(self, number: int) -> Question:
        """The row's single question, with what is needed to score the answer."""
        index = int(self.index.eligible[number])
        row = self.row_format.parse(self.store.row_bytes(index), number=index, where=self._where(index))
        if len(row.turns) != 1 or row.qa_info is None:
            raise ValueError(
                f"{self._where(index)}, id {row.id!r}: found {len(row.turns)} turns and qa_info {row.qa_info}, "
                "expected one turn and qa_info {type, category} in a test row."
            )
        ((question, answer),), _ = global_regions(row.turns, row.boxes, row.rles)
        return Question(
            id=row.id,
            image_id=Path(self.index.text("image", index)).stem,
            question=question,
            answer=answer,
            qa_type=row.qa_info[0],
            qa_category=row.qa_info[1],
        )

    def prompt(self, number: int) -> Sample:
        """The row's single question as an inference prompt."""
        row = int(self.index.eligible[number])
        shown = show_row(self.store, self.index, row, row_format=self.row_format, region_style=self.region_style)
        return self.processor.encode_prompt(shown.turns, shown.image, shown.id)

    def _where(self, index: int) -> str:
        return f"{self.store.name}, row {index}"


class Prompts(Dataset[PromptBatch]):
    """Left-padded prompts of a rank's share of a test file; ranks get equally many batches, no question twice.

    Every question is read and checked here, before the first answer is generated.

    Args:
        samples: Test rows: one turn and `qa_info` each.
        batch_size: Most prompts of a batch.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, samples: OSDSamples, *, batch_size: int, rank: int = 0, world_size: int = 1):
        questions = [samples.question(number) for number in range(len(samples))]
        repeated = [name for name, count in Counter(question.id for question in questions).items() if count > 1]
        if repeated:
            raise ValueError(
                f"{samples.store.name}: found ids that occur more than once, {repeated[:5]}, expected one id a "
                "question (answers of different models are compared by id); rename them."
            )
        batches = -(-len(samples) // (batch_size * world_size)) * world_size
        groups = np.array_split(np.arange(len(samples)), batches)
        self.samples = samples
        self.questions = questions
        self.groups = [group for group in groups[rank::world_size] if len(group)]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> PromptBatch:
        """The batch of prompts and their questions."""
        group = self.groups[number]
        prompts = [self.samples.prompt(int(sample)) for sample in group]
        batch = pad(prompts, pad_token_id=self.samples.processor.pad_token_id, side="left")
        return PromptBatch(batch=batch, questions=tuple(self.questions[int(sample)] for sample in group))
