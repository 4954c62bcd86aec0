"""Samples of a file, and what a loader asks for: packed rows of planned bins, and test prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from theworld.data.collator import pack, pad
from theworld.data.images import load_image
from theworld.data.index import Index
from theworld.data.osd import OSDRow, OSDRows
from theworld.data.processor import TheWorldProcessor
from theworld.data.regions import RegionStyle, draw_regions, global_regions
from theworld.types import IGNORE_INDEX, Batch, PromptBatch, Question, Sample


class OSDSamples(Dataset[Sample]):
    """The eligible rows of a file as samples; sample `i` is row `index.eligible[i]`.

    Args:
        rows: The file.
        index: Its index, made with the same processor.
        processor: Text and images to tensors.
        region_style: How regions are drawn.
    """

    def __init__(self, rows: OSDRows, *, index: Index, processor: TheWorldProcessor, region_style: RegionStyle = "box"):
        self.rows = rows
        self.index = index
        self.processor = processor
        self.region_style = region_style
        self.lengths: NDArray[np.int64] = index.lengths[index.eligible]
        self.targets: NDArray[np.int64] = index.targets[index.eligible]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        """The sample, checked against what the index counted."""
        row = self._row(number)
        kept = int(self.index.kept_turns[row.index])
        named, regions = global_regions(row.turns, row.boxes, row.rles)
        shown = [region for region in regions if region.first_turn < kept]
        image = draw_regions(load_image(row.image_path), shown, style=self.region_style)
        sample = self.processor.encode(named[:kept], image, row.id, max_seq_length=self.index.max_seq_length)
        found = len(sample.input_ids), int((sample.labels != IGNORE_INDEX).sum())
        expected = int(self.lengths[number]), int(self.targets[number])
        if found != expected:
            raise ValueError(
                f"{self.rows.path}, row {row.index}, id {row.id!r}: found {found} (tokens, targets), expected "
                f"{expected} from the index; the file or the tokenizer changed since it was indexed, start again."
            )
        return sample

    def question(self, number: int) -> Question:
        """The row's single question, with what is needed to score the answer."""
        return _question(self._row(number), self.rows)

    def prompt(self, number: int) -> Sample:
        """The row's single question as an inference prompt."""
        row = self._row(number)
        named, regions = global_regions(row.turns, row.boxes, row.rles)
        image = draw_regions(load_image(row.image_path), regions, style=self.region_style)
        return self.processor.encode_prompt(named, image, row.id)

    def _row(self, number: int) -> OSDRow:
        return self.rows[int(self.index.eligible[number])]


class PackedRows(Dataset[Batch]):
    """Bins of samples as packed rows.

    Args:
        samples: The samples.
        bins: Sample numbers of each row.
        step_target_tokens: Target tokens of the optimizer step that each row belongs to.
        budget: Tokens of a row.
    """

    def __init__(
        self, samples: OSDSamples, *, bins: Sequence[NDArray[np.int64]], step_target_tokens: Sequence[int], budget: int
    ):
        self.samples = samples
        self.bins = bins
        self.step_target_tokens = step_target_tokens
        self.budget = budget

    def __len__(self) -> int:
        return len(self.bins)

    def __getitem__(self, row: int) -> Batch:
        """The packed row."""
        return pack(
            [self.samples[int(number)] for number in self.bins[row]],
            budget=self.budget,
            pad_token_id=self.samples.processor.pad_token_id,
            step_target_tokens=self.step_target_tokens[row],
        )


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
                f"{samples.rows.path}: found ids that occur more than once, {repeated[:5]}, expected one id a question "
                "(answers of different models are compared by id); rename them."
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


def _question(row: OSDRow, rows: OSDRows) -> Question:
    if len(row.turns) != 1 or row.qa_info is None:
        raise ValueError(
            f"{rows.path}, row {row.index}, id {row.id!r}: found {len(row.turns)} turns and qa_info {row.qa_info}, "
            "expected one turn and qa_info {type, category} in a test row."
        )
    ((question, answer),), _ = global_regions(row.turns, row.boxes, row.rles)
    return Question(
        id=row.id,
        image_id=row.image_path.stem,
        question=question,
        answer=answer,
        qa_type=row.qa_info[0],
        qa_category=row.qa_info[1],
    )
