"""Model and prompts → answers: the one path of tests, benchmarks, the audit and the prompts watched during training.

Decoding is greedy. The answer to a prompt does not depend on the prompts beside it, for these reasons:

- **Left padding.** The next token of every row comes from the last column, so a shorter prompt is not continued
  behind padding. Padding is a document of its own, which no token of the prompt attends to.
- **Positions count from the first real token**, not from the padding, so rotary angles are those of the prompt alone.
- **Row by row placeholders**: images and frames are encoded one for each row, and nothing is normalised over a batch.
- **Finished rows** go on as padding, and nothing of them is kept.
- **Near ties are decided alone.** What is left is rounding: kernels add up in another order for another number of rows.
  In float32 logits then differ by about 1e-5, which decides between two tokens that are as good as equal, once in some
  hundred answers. So a row in which the best two tokens were ever nearer than `NEAR_TIE` is answered again without the
  others; in every other row the difference is too small to matter.

In bfloat16 logits differ by tenths, more than many a decision: there some answers do depend on the batch
(`experiments/README.md` has counts). Compare models in float32, or at one batch size.

B rows of a batch · T tokens of a row
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from theworld.data.packing.collator import pad
from theworld.data.processor import TheWorldProcessor
from theworld.models.interventions import narrowed
from theworld.models.theworld import TheWorld
from theworld.types import PADDING_DOCUMENT, Batch, Sample

NEAR_TIE = 1e-3
"""Two logits nearer than this are told apart without other rows in the batch."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model answered to one prompt.

    Attributes:
        id: Of the prompt.
        text: Without special tokens, stripped.
        tokens: Ids that were generated, the one that ended the turn not among them.
        is_complete: Whether the model ended its turn itself; False: it was cut off at the most tokens allowed.
    """

    id: str
    text: str
    tokens: tuple[int, ...]
    is_complete: bool


def answer(
    model: TheWorld, processor: TheWorldProcessor, samples: Iterable[Sample], *, batch_size: int, max_new_tokens: int
) -> Iterator[Answer]:
    """Answers to prompts, in their order; a batch of prompts is read only when the answers before it are taken.

    Args:
        model: In evaluation mode, on the device to compute on.
        processor: The one that made the samples.
        samples: Prompts, as `TheWorldProcessor.encode_prompt` makes them.
        batch_size: Most prompts of a batch.
        max_new_tokens: Longest answer, in tokens.

    Raises:
        ValueError: `batch_size` or `max_new_tokens` is below 1, or the model is in training mode.
    """
    for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ValueError(f"found {name}={value}, expected at least 1")
    return _answers(model, processor, iter(samples), batch_size=batch_size, max_new_tokens=max_new_tokens)


def answer_batch(
    model: TheWorld, processor: TheWorldProcessor, batch: Batch, *, max_new_tokens: int
) -> tuple[Answer, ...]:
    """Answers to left-padded prompts, in the order of the rows; an audit's intervention in force is one for this batch.

    Args:
        model: In evaluation mode.
        processor: The one that made the prompts.
        batch: From `pad(…, side="left")`, on the model's device.
        max_new_tokens: Longest answer, in tokens.

    Raises:
        ValueError: The model is in training mode, a row does not end in its own last token, or rows have other numbers
            of images than one.
    """
    if model.training:
        raise ValueError("found a model in training mode, expected evaluation mode; call model.eval() first")
    if bool((batch.document_ids[:, -1] == PADDING_DOCUMENT).any()):
        raise ValueError("found prompts padded on the right, expected the left; use pad(samples, side='left')")
    stops = [processor.end_of_turn_id, processor.tokenizer.eos_token_id]
    rows, margins = _generate(model, processor, batch, stops, max_new_tokens)
    if len(rows) > 1:
        for row in (margins < NEAR_TIE).nonzero().flatten().tolist():
            with narrowed(model, row, tokens=batch.document_lengths[row]):
                rows[row] = _generate(model, processor, _row(batch, row), stops, max_new_tokens)[0][0]
    return tuple(_answer(processor, id, row, stops) for id, row in zip(batch.ids, rows, strict=True))


def _generate(
    model: TheWorld, processor: TheWorldProcessor, batch: Batch, stops: list[int], max_new_tokens: int
) -> tuple[list[list[int]], Tensor]:
    """New tokens of every row, and float32[B]: how near the best two logits ever were before its end."""
    margins = _Margins(torch.tensor(stops, device=batch.input_ids.device), len(batch.input_ids))
    with torch.no_grad():
        generated = model.generate(
            input_ids=batch.input_ids,
            token_type_ids=batch.token_type_ids,
            attention_mask=(batch.document_ids != PADDING_DOCUMENT).long(),
            pixel_values=batch.pixel_values,
            world_pixel_values=batch.world_pixel_values,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=stops,
            pad_token_id=processor.pad_token_id,
            logits_processor=LogitsProcessorList([margins]),
        )  # (B, T + new tokens)
    return generated[:, batch.input_ids.shape[1] :].tolist(), margins.least


class _Margins(LogitsProcessor):
    """Watches how near the best two logits of each row come while it is not finished; changes nothing."""

    def __init__(self, stops: Tensor, rows: int) -> None:
        self.stops = stops
        self.least = torch.full((rows,), torch.inf, device=stops.device)
        self.is_open = torch.ones(rows, dtype=torch.bool, device=stops.device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        best = scores.float().topk(2, dim=-1).values  # (B, 2)
        self.is_open &= ~torch.isin(input_ids[:, -1], self.stops)
        margin = torch.where(self.is_open, best[:, 0] - best[:, 1], torch.inf)
        self.least = torch.minimum(self.least, margin)
        return scores


def _row(batch: Batch, row: int) -> Batch:
    """One prompt of a left-padded batch, without its padding."""
    rows, tokens = len(batch.input_ids), slice(-batch.document_lengths[row], None)
    text = ("input_ids", "labels", "token_type_ids", "position_ids", "document_ids")
    pixels = {}
    for name in ("pixel_values", "world_pixel_values"):
        given = getattr(batch, name)
        if len(given) not in (0, rows):
            raise ValueError(f"found {len(given)} {name} for {rows} prompts, expected one each or none")
        pixels[name] = given[row : row + 1]
    return replace(
        batch,
        **{name: getattr(batch, name)[row : row + 1, tokens] for name in text},
        **pixels,
        ids=(batch.ids[row],),
        document_lengths=(batch.document_lengths[row],),
    )


def _answers(
    model: TheWorld, processor: TheWorldProcessor, samples: Iterator[Sample], *, batch_size: int, max_new_tokens: int
) -> Iterator[Answer]:
    while prompts := list(islice(samples, batch_size)):
        batch = pad(prompts, pad_token_id=processor.pad_token_id, side="left").to(model.device)
        yield from answer_batch(model, processor, batch, max_new_tokens=max_new_tokens)


def _answer(processor: TheWorldProcessor, id: str, row: list[int], stops: list[int]) -> Answer:
    ends = [place for place, token in enumerate(row) if token in stops]
    tokens = row[: ends[0]] if ends else row
    text = processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return Answer(id=id, text=text, tokens=tuple(tokens), is_complete=bool(ends))
