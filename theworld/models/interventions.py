"""What an audit changes inside a forward: other tokens in the placeholders, or world tokens that no later one may see.

The model asks for it at two places, behind the towers and behind the mask. With `model.intervention` None, which it is
outside of `intervene`, nothing of this runs.

    B rows · T tokens of a row · W world frames · C, F latent channels and latent frames of each
    I images · N tokens of one of them · D hidden size · S width of SigLIP
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import Cache

from theworld.models.attention.backends import Mask
from theworld.models.image_features import image_tokens

if TYPE_CHECKING:
    from theworld.models.theworld import TheWorld


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """For one batch. What is None stays as the model has it.

    Attributes:
        world_tokens: float[W, N, D] in place of the world branch's, whose frames need not be given then.
        image_features: float[I, N, S] in place of SigLIP's, whose images need not be given then.
        blocked: bool[B, T of the prompt]. As keys these tokens are masked for every query that is not one of them, in
            the prompt and in what is generated after it. Positions do not change.
    """

    world_tokens: Tensor | None = None
    image_features: Tensor | None = None
    blocked: Tensor | None = None

    def of_row(self, row: int, *, tokens: int) -> Intervention:
        """The same for one row of the batch without its padding on the left.

        Args:
            row: Its number; the batch has one image and one frame a row.
            tokens: Its length.
        """
        one = slice(row, row + 1)
        return Intervention(
            world_tokens=None if self.world_tokens is None else self.world_tokens[one],
            image_features=None if self.image_features is None else self.image_features[one],
            blocked=None if self.blocked is None else self.blocked[one, -tokens:],
        )

    def tokens(self, model: TheWorld, images: Tensor, worlds: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens float[I, N, D] and world tokens float[W, N, D] to put into the placeholders."""
        if self.image_features is not None:
            images = image_tokens(model.gemma, None, self.image_features)
        return images, worlds if self.world_tokens is None else self.world_tokens

    def masked(
        self, mask: Tensor | dict[str, Mask] | None, *, cache: Cache | None, new_tokens: int
    ) -> Tensor | dict[str, Mask] | None:
        """The mask without the blocked keys.

        Args:
            mask: Of a whole prompt bool[B, 1, T, T] for each kind of layer; of a decode step int64[B, past + T], or
                None if nothing is masked there.
            cache: Of the tokens before.
            new_tokens: T.

        Raises:
            ValueError: The attention backend is not `sdpa`.
        """
        if self.blocked is None:
            return mask
        if isinstance(mask, dict):
            return {kind: self._without_blocked(kind_mask) for kind, kind_mask in mask.items()}
        past = 0 if cache is None else cache.get_seq_length()
        if mask is None:
            mask = self.blocked.new_ones(len(self.blocked), past + new_tokens, dtype=torch.int64)
        return mask.masked_fill(self._blocked(mask.shape[1]), 0)  # (B, past + T)

    def _without_blocked(self, mask: Mask) -> Tensor:
        if not isinstance(mask, Tensor):
            raise ValueError(
                f"found blocked tokens and a {type(mask).__name__}, expected a tensor; set model.attention_backend to "
                "'sdpa'"
            )
        blocked = self._blocked(mask.shape[-1])
        return mask & ~(blocked[:, None, None, :] & ~blocked[:, None, :, None])  # (B, 1, T, T)

    def _blocked(self, length: int) -> Tensor:
        """bool[B, length]: what was generated after the prompt is not blocked."""
        assert self.blocked is not None
        return pad(self.blocked, (0, length - self.blocked.shape[1]))


def future_is_present(latents: Tensor) -> Tensor:
    """Latents `float[W, C, F, h, w]` whose future frames are copies of the present one: no future is known.

    Raises:
        ValueError: There is no future frame.
    """
    if latents.shape[2] < 2:
        raise ValueError(
            f"found latents of {latents.shape[2]} frame for the arm future_is_present, expected several: a model with "
            "num_world_steps=0 has no future to take away; leave the arm out"
        )
    return latents[:, :, :1].expand_as(latents)


@contextmanager
def intervene(model: TheWorld, intervention: Intervention | None) -> Iterator[None]:
    """Let `model` compute with `intervention` inside the block, and without one after it.

    Raises:
        ValueError: Another one is in force.
    """
    if model.intervention is not None:
        raise ValueError("found an intervention in force, expected none; leave its block before the next one")
    model.intervention = intervention
    try:
        yield
    finally:
        model.intervention = None


@contextmanager
def narrowed(model: TheWorld, row: int, *, tokens: int) -> Iterator[None]:
    """Inside the block, cut the intervention in force, if any, to one row, as `Intervention.of_row` does."""
    whole = model.intervention
    model.intervention = None if whole is None else whole.of_row(row, tokens=tokens)
    try:
        yield
    finally:
        model.intervention = whole
