"""Model and prompts → answers: the one path of tests, benchmarks, the audit and the prompts watched during training.

Decoding is greedy. The answer to a prompt does not depend on the prompts beside it, for these reasons:

- **Left padding.** The next token of every row comes from the last column, so a shorter prompt is not continued
  behind padding. Padding is a document of its own, which no token of the prompt attends to.
- **Positions count from the first real token**, not from the padding, so rotary angles are those of the prompt alone.
- **Row by row placeholders**: images and frames are encoded one for each row, and nothing is normalised over a batch.
- **Finished rows** go on as padding, and nothing of them is kept.
- What is left is rounding: kernels add up in another order for another number of rows. In float32 logits differ in the
  sixth digit, so that a token changes only where the best two are as good as equal; in bfloat16 they differ in the
  third, and some answers do change (`experiments/README.md` has a count). Compare models in float32, or at one batch
  size.

B rows of a batch · T tokens of a row
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from theworld.data.packing.collator import pad
from theworld.data.processor import TheWorldProcessor
from theworld.models.theworld import TheWorld
from theworld.types import PADDING_DOCUMENT, Batch, Sample


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
    """Answers to left-padded prompts, in the order of the rows.

    Args:
        model: In evaluation mode.
        processor: The one that made the prompts.
        batch: From `pad(…, side="left")`, on the model's device.
        max_new_tokens: Longest answer, in tokens.

    Raises:
        ValueError: The model is in training mode, or a row does not end in its own last token.
    """
    if model.training:
        raise ValueError("found a model in training mode, expected evaluation mode; call model.eval() first")
    if bool((batch.document_ids[:, -1] == PADDING_DOCUMENT).any()):
        raise ValueError("found prompts padded on the right, expected the left; use pad(samples, side='left')")
    stops = [processor.end_of_turn_id, processor.tokenizer.eos_token_id]
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
        )  # (B, T + new tokens)
    rows = generated[:, batch.input_ids.shape[1] :].tolist()
    return tuple(_answer(processor, id, row, stops) for id, row in zip(batch.ids, rows, strict=True))


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
