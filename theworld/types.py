"""The vocabulary that data, models and training share: one sample, one batch, token types.

This module imports nothing of ours. Shape legend, used in every file of the package:

    B rows of a batch · T tokens of a row · N world tokens of a sample · I images of a batch
    F latent frames · D hidden size · C latent channels · V vocabulary size
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import IntEnum
from typing import cast

import torch
from torch import Tensor

IGNORE_INDEX = -100
"""Label of a position that is no target (the value torch's cross-entropy and transformers use)."""

PADDING_DOCUMENT = -1
"""`document_ids` of a padding position; it attends to nothing but padding, itself included."""

FEATURES = {"image_features": "pixel_values", "world_latents": "world_pixel_values"}
"""Fields of a sample or batch for what a tower makes of pixels → the fields of these pixels, whose place it takes."""

_ALWAYS_WAIT = ("cpu", "mps")
"""Kinds of device to which Lightning, too, never copies without waiting."""


class TokenType(IntEnum):
    """What a position holds; 0 and 1 are Gemma's own `token_type_ids`."""

    TEXT = 0
    IMAGE = 1
    WORLD = 2


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One conversation about one image, with every placeholder already expanded.

    Attributes:
        id: Name of the row it came from, for messages and for the ledger of what was trained on.
        input_ids: int64[T], world and image placeholders included, so `len(input_ids)` is the true length.
        labels: int64[T], aligned with `input_ids` (not shifted); `IGNORE_INDEX` where not a target.
        token_type_ids: int64[T], values of `TokenType`.
        pixel_values: float32[I, 3, H, W], what SigLIP sees, normalised by the image processor.
        world_pixel_values: float32[W, 3, h, w] in [-1, 1], RGB, what the world encoder sees. `W` is 0 with the
            world branch off.
        image_features: float[I, N, S], what the vision tower made of the images, in place of `pixel_values`, which then
            hold no image.
        world_latents: float32[W, C, F, h/8, w/8], the world encoder's output, in place of `world_pixel_values`.
    """

    id: str
    input_ids: Tensor
    labels: Tensor
    token_type_ids: Tensor
    pixel_values: Tensor
    world_pixel_values: Tensor
    image_features: Tensor | None = None
    world_latents: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class FailedSample:
    """A sample that could not be read when its turn came; a zero-loss one of the same length took its place.

    Attributes:
        id: Its name.
        reason: What was found, expected, and how to fix it.
        targets: Its target tokens, each counted with its loss weight: what `Batch.step_target_tokens` has too many.
    """

    id: str
    reason: str
    targets: float


@dataclass(frozen=True, kw_only=True)
class Level:
    """The rows that go on after the attention of one of the last layers, in order, as one packed row.

    Attributes:
        rows: int64[R], indices into the rows of the level before (of the whole batch for the first); padding repeats
            one of them.
        document_ids: int64[1, R], different for every sample of the batch, `PADDING_DOCUMENT` on padding.
        token_type_ids: int64[1, R].
        num_images: Images among the rows; each is there as a whole or not at all.
    """

    rows: Tensor
    document_ids: Tensor
    token_type_ids: Tensor
    num_images: int


@dataclass(frozen=True, kw_only=True)
class LiveRows:
    """The rows that can still reach a target, layer by layer (`theworld.models.live_rows` plans them).

    Attributes:
        levels: One for each of the last layers but the last one, from the last global layer on.
        target_rows: int64[M or more], indices into the last level of the position before each target, in order; padding
            repeats a row.
    """

    levels: tuple[Level, ...]
    target_rows: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What the model consumes: one packed row (`B = 1`), or a padded batch for generation and parity tests.

    Attributes:
        input_ids: int64[B, T].
        labels: int64[B, T] aligned with `input_ids`; the model shifts.
        token_type_ids: int64[B, T], values of `TokenType`.
        position_ids: int64[B, T], restarting at 0 with every document.
        document_ids: int64[B, T], equal for tokens of one sample, `PADDING_DOCUMENT` on padding.
        pixel_values: float32[I, 3, H, W], images in the order of their placeholders (row by row).
        world_pixel_values: float32[W, 3, h, w], world frames in the order of their placeholders.
        target_positions: int64[M], flat indices into B·T of the positions whose *output* is scored: the position
            before each target. Made by the collator on the CPU, so that the model needs no host synchronisation.
        step_target_tokens: Target tokens of the whole optimizer step (all ranks, all micro-batches), from the plan;
            each counted with its loss weight.
        target_weights: float32[M], loss weight of each target; None when all are 1.
        image_features: float[I, N, S] in place of `pixel_values`, as in `Sample`.
        world_latents: float32[W, C, F, h/8, w/8] in place of `world_pixel_values`, as in `Sample`.
        ids: Names of the samples, in row order.
        failed: Those of them that could not be read and carry no loss.
        live_rows: The rows the last layers compute; None for all of them. The model plans it, before the transfer.
        document_lengths: Tokens of each sample, in row order, so that the host knows them without reading a device.
        world_token_counts: World placeholders of each world frame, its future ones included, where samples drew
            different numbers; empty when all have the model's.
    """

    input_ids: Tensor
    labels: Tensor
    token_type_ids: Tensor
    position_ids: Tensor
    document_ids: Tensor
    pixel_values: Tensor
    world_pixel_values: Tensor
    target_positions: Tensor
    step_target_tokens: float
    target_weights: Tensor | None = None
    image_features: Tensor | None = None
    world_latents: Tensor | None = None
    ids: tuple[str, ...] = ()
    failed: tuple[FailedSample, ...] = ()
    live_rows: LiveRows | None = None
    document_lengths: tuple[int, ...] = ()
    world_token_counts: tuple[int, ...] = ()

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> Batch:
        """The same batch with every tensor on `device`.

        Args:
            device: Where to.
            non_blocking: Do not wait for the copy to a GPU, which is ordered before whatever the GPU does next. A copy
                to the CPU is always waited for, because nothing would order it before the CPU reads it.
        """
        wait = not non_blocking or torch.device(device).type in _ALWAYS_WAIT
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=not wait))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by `torch.utils.data.DataLoader`)."""
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    @property
    def num_target_tokens(self) -> int:
        """Target tokens of this batch."""
        return len(self.target_positions)

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding (reads the device; meant for the CPU side)."""
        return int((self.document_ids != PADDING_DOCUMENT).sum())

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with `change` applied to every tensor."""
        return cast(Batch, _changed(self, change))


@dataclass(frozen=True, kw_only=True)
class Question:
    """One held-out question, with what is needed to score its answer.

    Attributes:
        id: Row id.
        image_id: The image's name; questions of one image are not independent, and tests group by it.
        question: What was asked, with `Region [i]` names.
        answer: The ground truth, as the data set writes it.
        qa_type: `qualitative` or `quantitative`.
        qa_category: SpatialRGPT category, e.g. `left_predicate`, `distance_data`.
    """

    id: str
    image_id: str
    question: str
    answer: str
    qa_type: str
    qa_category: str


@dataclass(frozen=True, kw_only=True)
class PromptBatch:
    """Left-padded inference prompts (`labels` all ignored) and the questions they ask, in the same order."""

    batch: Batch
    questions: tuple[Question, ...]

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> PromptBatch:
        """The same prompts with every tensor on `device`, as `Batch.to` has it."""
        return replace(self, batch=self.batch.to(device, non_blocking=non_blocking))


def _changed(value: object, change: Callable[[Tensor], Tensor]) -> object:
    """`value` with `change` applied to the tensors in it, and in the dataclasses and tuples in it."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_changed(part, change) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _changed(getattr(value, f.name), change) for f in fields(value)})
    return value
