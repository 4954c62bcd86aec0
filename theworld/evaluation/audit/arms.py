"""The arms of an audit: what each of them gives the model in place of what it saw.

Every arm asks the same questions in the same batches. Positions, lengths and text are the same in all arms.

    n samples of the audited set · B prompts of a batch · F latent frames · N world tokens of a sample
    D hidden size · V vocabulary size
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from theworld.models.interventions import Intervention, future_is_present
from theworld.models.theworld import TheWorld
from theworld.types import PromptBatch, TokenType

REAL = "real"
ARMS: dict[str, str] = {
    REAL: "World tokens and image as the model has them.",
    "zeroed": "The projector's output, after its normalisation to the text's RMS, is replaced by zeros.",
    "mean": "Each world token is replaced by the mean over the audited set of the tokens at its place.",
    "shuffled": "World tokens of another sample, of another image: real tokens that know nothing of this picture.",
    "noise": "Each world token is replaced by Gaussian noise of the same RMS; the seed is fixed.",
    "blocked": "No later token that is not a world token can attend to a world token; positions do not change.",
    "image_removed": "SigLIP sees a plain grey picture: its tokens keep place, number and scale, and show nothing.",
    "both_removed": "The grey picture for SigLIP, and world tokens blocked: what is left is the text.",
}
"""Arms by name, in the order in which they run, and what they are.

An image is removed by a blank picture and not by masking its tokens, because then nothing but the information is gone:
a model that needs *some* image tokens to attend to, whatever they say, is not taken for one that looks at the image.
For world tokens `shuffled` is that arm, and it alone decides the verdict.
"""

WORLD_ARMS = ("zeroed", "mean", "shuffled", "noise", "blocked")
"""Arms in which the world tokens alone are changed."""

FUTURE = "future_is_present"
FUTURE_ARMS = {FUTURE: "The latents of future frames are replaced by copies of the present one, before the projector."}
"""The arm that only models with future frames have: what is gone is what only the future shows."""


def arms_of(model: TheWorld) -> dict[str, str]:
    """The arms that an audit of `model` runs, in their order, and what they are."""
    return ARMS | FUTURE_ARMS if model.config.num_world_steps else ARMS


@dataclass(frozen=True, kw_only=True)
class Group:
    """One batch of the audited set, without pixels, and what the towers made of them.

    Attributes:
        prompts: Left-padded prompts and their questions; `pixel_values` and `world_pixel_values` hold nothing.
        first: Number of its first sample in the set.
        latents: float32[B, C, F, h/8, w/8], what the world encoder or a world source made.
        image_features: float[B, N, S], SigLIP's.
        shows_image: Whether SigLIP's picture was another than the blank one, a sample each.
        frame_hashes: sha256 of the world encoder's pixels, a sample each.
        texts: Answers of the real arm.
        logits: float32[B, V] that chose their first tokens.
    """

    prompts: PromptBatch
    first: int
    latents: Tensor
    image_features: Tensor
    shows_image: tuple[bool, ...]
    frame_hashes: tuple[str, ...]
    texts: tuple[str, ...]
    logits: Tensor


class Arms:
    """Makes the interventions of every arm for every batch.

    Args:
        model: Whose projector turns latents into world tokens.
        groups: The audited set, in order.
        blank_features: float[1, N, S], what SigLIP makes of a blank picture.
        seed: Of the noise and of the exchange between samples.

    Attributes:
        partners: int64[n], the sample whose world tokens each sample gets in `shuffled`.

    Raises:
        ValueError: More than half of the samples are about one image.
    """

    def __init__(self, model: TheWorld, groups: Sequence[Group], *, blank_features: Tensor, seed: int) -> None:
        self._model = model
        self._groups = groups
        self._blank_features = blank_features
        self._seed = seed
        self._latents = torch.cat([group.latents for group in groups])  # (n, C, F, h/8, w/8)
        images = [question.image_id for group in groups for question in group.prompts.questions]
        self.partners = derangement(images, seed=seed)

    def intervention(self, arm: str, group: Group) -> Intervention:
        """What `arm` changes in the batch; `real` gives back what the towers made, which changes nothing.

        Raises:
            ValueError: `future_is_present` of a model without future frames.
        """
        world = self._world_tokens(arm, group)  # (B, N, D)
        image = group.image_features
        if arm in ("image_removed", "both_removed"):
            image = self._blank_features.expand(len(image), -1, -1)
        types = group.prompts.batch.token_type_ids
        blocked = types == TokenType.WORLD if arm in ("blocked", "both_removed") else None  # (B, T)
        return Intervention(
            world_tokens=world,
            image_features=image.to(world.device),
            blocked=None if blocked is None else blocked.to(world.device),
        )

    def changes(self, arm: str, group: Group) -> list[bool]:
        """Whether `arm` gives the model other inputs than `real` does, a sample each."""
        if arm in ("blocked", "both_removed"):
            return [True] * len(group.latents)
        if arm == "image_removed":
            return list(group.shows_image)
        real, changed = self._world_tokens(REAL, group), self._world_tokens(arm, group)
        return [not torch.equal(a, b) for a, b in zip(real, changed, strict=True)]

    @torch.no_grad()
    def world_tokens(self, latents: Tensor) -> Tensor:
        """float[B, N, D] as the model makes them of float32[B, C, F, h/8, w/8]."""
        assert self._model.cosmos_encoder is not None
        projector = self._model.cosmos_encoder.projector
        return projector(latents.to(projector.target_rms.device))

    @cached_property
    def mean_tokens(self) -> Tensor:
        """float64[N, D], the mean over the set at each place."""
        sums = [self.world_tokens(group.latents).double().sum(dim=0) for group in self._groups]
        return torch.stack(sums).sum(dim=0) / len(self._latents)

    def _world_tokens(self, arm: str, group: Group) -> Tensor:
        if arm == FUTURE:
            return self.world_tokens(future_is_present(group.latents))
        real = self.world_tokens(group.latents)  # (B, N, D)
        if arm == "zeroed":
            return torch.zeros_like(real)
        if arm == "mean":
            return self.mean_tokens.to(real).expand_as(real)
        if arm == "shuffled":
            members = self.partners[group.first : group.first + len(real)]
            return self.world_tokens(self._latents[torch.from_numpy(members)])
        if arm == "noise":
            return torch.stack([self._noise(tokens, group.first + row) for row, tokens in enumerate(real)])
        return real

    def _noise(self, tokens: Tensor, sample: int) -> Tensor:
        """Gaussian tokens float[N, D], each of the RMS of the one in its place; the same in whatever batch."""
        generator = torch.Generator().manual_seed((self._seed << 32) + sample)
        drawn = torch.randn(tokens.shape, generator=generator).to(tokens.device)
        scale = rms(tokens, dim=-1, keepdim=True) / rms(drawn, dim=-1, keepdim=True)  # (N, 1)
        return (drawn * scale).to(tokens.dtype)


def rms(values: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Root mean square, in float32."""
    return values.float().square().mean(dim, keepdim=keepdim).sqrt()


def derangement(images: Sequence[str], *, seed: int) -> np.ndarray:
    """A permutation, int64[n], that takes every sample to one of another image.

    Samples are laid in a row, image by image in random order, and shifted by the largest number that share an image.

    Raises:
        ValueError: One image has more than half of the samples, so that there is no such permutation.
    """
    counts = Counter(images)
    if not counts or (most := counts.most_common(1)[0])[1] > len(images) // 2:
        raise ValueError(
            f"found {len(images)} samples of which {most[1] if counts else 0} are about one image, expected at most "
            "half: world tokens cannot be exchanged between images; audit a set of more images"
        )
    generator = np.random.default_rng(seed)
    rank = {image: place for place, image in enumerate(generator.permutation(sorted(counts)).tolist())}
    order = np.array(sorted(generator.permutation(len(images)).tolist(), key=lambda i: rank[images[i]]))
    partners = np.empty(len(images), dtype=np.int64)
    partners[order] = np.roll(order, -most[1])
    return partners
