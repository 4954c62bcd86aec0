"""Pretrains the tiny Gemma-3 VLM on images with questions about single regions, and on text that compares regions.

The language-model loss is the package's own. Two losses beside it make a small model learn in minutes:

- dense, fading out: from every patch of the vision tower, read the kind and the colour of what it shows and which
  drawn regions enclose it. Without it the tower learns to see only through a few answer tokens;
- read-out: wherever a text names a region, the middle of the language model holds what is known about it (kind,
  colour, place), whether an image or a text said so. A large base does this by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from mentions import UNKNOWN
from pace import Pace
from torch import Tensor, nn
from torch.nn import functional as F

from theworld.models.losses import find_target_positions
from theworld.models.theworld import TheWorld
from theworld.types import PADDING_DOCUMENT


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Everything on the device: `N` samples padded to `T` tokens, their images, and dense truth on a `P × P` grid.

    input_ids int16[N, T] · labels int16[N, T] · token_type_ids uint8[N, T] · length int32[N] ·
    images uint8[N, 3, H, W] · kinds uint8[N, P, P] · colours uint8[N, P, P] (0: background) ·
    enclosed bool[N, R, P, P] · mention_at int16[N, M] (-1: none) · mention_facts int8[N, M, 8] (`mentions.Facts`)
    """

    input_ids: Tensor
    labels: Tensor
    token_type_ids: Tensor
    length: Tensor
    images: Tensor
    kinds: Tensor
    colours: Tensor
    enclosed: Tensor
    mention_at: Tensor
    mention_facts: Tensor


@dataclass(frozen=True, kw_only=True)
class TextCorpus:
    """Conversations without an image; the fields are those of `Corpus`."""

    input_ids: Tensor
    labels: Tensor
    length: Tensor
    mention_at: Tensor
    mention_facts: Tensor


def text_inputs(corpus: Corpus | TextCorpus, index: Tensor) -> dict[str, Tensor]:
    """The model's inputs for some samples, padded to the corpus length, without their images."""
    input_ids = corpus.input_ids[index].long()
    real = torch.arange(input_ids.shape[1], device=index.device) < corpus.length[index, None]
    return {
        "input_ids": input_ids,
        "labels": corpus.labels[index].long(),
        "token_type_ids": torch.zeros_like(input_ids),
        "document_ids": torch.where(real, 0, PADDING_DOCUMENT),
    }


def image_inputs(corpus: Corpus, index: Tensor) -> dict[str, Tensor]:
    """The model's inputs for some samples, padded to the corpus length."""
    pixel_values = corpus.images[index].float() / 127.5 - 1.0
    types = corpus.token_type_ids[index].long()
    return text_inputs(corpus, index) | {"token_type_ids": types, "pixel_values": pixel_values}


READ_OUT_WEIGHT = 0.5


class DenseHeads(nn.Module):
    """Linear readouts of every SigLIP patch; thrown away after pretraining."""

    def __init__(self, hidden_size: int, *, num_kinds: int, num_colours: int, num_regions: int) -> None:
        super().__init__()
        self.kinds = nn.Linear(hidden_size, num_kinds)
        self.colours = nn.Linear(hidden_size, num_colours)
        self.enclosed = nn.Linear(hidden_size, num_regions)

    def forward(self, patches: Tensor, kinds: Tensor, colours: Tensor, enclosed: Tensor) -> Tensor:
        """float[N, P·P, D] and the dense truth → float32[] mean loss."""
        inside = enclosed.flatten(2).transpose(1, 2).float()  # (N, P·P, R)
        return (
            F.cross_entropy(self.kinds(patches).float().flatten(0, 1), kinds.flatten().long())
            + F.cross_entropy(self.colours(patches).float().flatten(0, 1), colours.flatten().long())
            + F.binary_cross_entropy_with_logits(self.enclosed(patches).float(), inside)
        )


class ReadOut(nn.Module):
    """Linear readouts of a mention in the middle of the language model; thrown away after pretraining."""

    def __init__(self, hidden_size: int, *, num_kinds: int, num_colours: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.words = nn.ModuleList(nn.Linear(hidden_size, classes) for classes in (num_kinds, num_colours, 5, 5, 3, 3))
        self.place = nn.Linear(hidden_size, 2)

    def forward(self, hidden: Tensor, mention_at: Tensor, mention_facts: Tensor) -> Tensor:
        """float[N, T, D], int[N, M] and int[N, M, 8] → float32[] mean loss; a fact of -1 does not count."""
        at = mention_at.long().clamp(min=0)[..., None].expand(-1, -1, hidden.shape[-1])
        mentions = self.norm(hidden.gather(1, at)).float().flatten(0, 1)  # (N·M, D)
        facts = torch.where(mention_at[..., None] >= 0, mention_facts.long(), UNKNOWN).flatten(0, 1)  # (N·M, 8)
        loss = hidden.new_zeros((), dtype=torch.float32)
        for number, head in enumerate(self.words):
            loss = loss + F.cross_entropy(head(mentions).float(), facts[:, number], ignore_index=UNKNOWN)
        known = facts[:, 6:] >= 0
        error = (self.place(mentions).float() - (facts[:, 6:].float() / 50 - 1)).abs()
        return loss + 2 * (error * known).sum() / known.sum().clamp(min=1)


def initialise(model: TheWorld, *, seed: int) -> None:
    """Start values that suit a small model on clean synthetic images.

    SigLIP's position embeddings (std 1/√width) drown in patch content there, so they start as sine waves of unit scale,
    and the multimodal projection starts as a random matrix instead of zeros.
    """
    generator = torch.Generator().manual_seed(seed)
    vision = model.gemma.model.vision_tower.embeddings.position_embedding.weight
    with torch.no_grad():
        vision.copy_(sine_positions(int(math.sqrt(len(vision))), vision.shape[1]))
        projection = model.gemma.model.multi_modal_projector.mm_input_projection_weight
        projection.copy_(torch.randn(projection.shape, generator=generator) / math.sqrt(projection.shape[0]))


def sine_positions(side: int, width: int) -> Tensor:
    """Two-dimensional sine-cosine embeddings, float32[side·side, width] (ViT's, half the width for each axis)."""
    frequency = 1.0 / 100 ** (torch.arange(width // 4) / (width // 4))
    angle = torch.arange(side)[:, None] * frequency  # (side, width/4)
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, width/2)
    rows = axis[:, None].expand(side, side, -1)
    columns = axis[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast; `read_out_layer` is the number of layers before the read-out."""

    steps: int
    max_seconds: float | None
    dense_steps: int
    batch_size: int
    text_batch_size: int
    learning_rate: float
    read_out_layer: int
    seed: int


def pretrain_vlm(
    model: TheWorld, heads: DenseHeads, read_out: ReadOut, corpus: Corpus, text: TextCorpus, recipe: Recipe
) -> list[tuple[int, float, float, float]]:
    """Trains everything in `model.gemma`; returns (step, answer, dense, read-out loss) of the training curve."""
    device = corpus.images.device
    generator = torch.Generator(device=device).manual_seed(recipe.seed)
    parameters = [*model.gemma.parameters(), *heads.parameters(), *read_out.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
    seen: dict[str, Tensor] = {}
    layer = model.gemma.model.language_model.layers[recipe.read_out_layer - 1]
    hooks = [
        model.gemma.model.vision_tower.register_forward_hook(
            lambda _m, _i, o: seen.update(patches=o.last_hidden_state)
        ),
        layer.register_forward_hook(lambda _m, _i, o: seen.update(middle=o[0] if isinstance(o, tuple) else o)),
    ]
    curve = []
    pace = Pace(recipe.steps, recipe.max_seconds)
    for step in pace:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_factor(step, pace.steps)
        index, text_index = (
            torch.randint(len(part.length), (size,), generator=generator, device=device)
            for part, size in ((corpus, recipe.batch_size), (text, recipe.text_batch_size))
        )
        images, words = image_inputs(corpus, index), text_inputs(text, text_index)
        rows = images | {key: torch.cat([images[key], words[key]]) for key in words}
        with torch.autocast(device.type, torch.bfloat16):
            answers = model(**rows, target_positions=find_target_positions(rows["labels"])).loss
            dense = heads(seen["patches"], corpus.kinds[index], corpus.colours[index], corpus.enclosed[index])
            mentions = read_out(
                seen["middle"],
                torch.cat([corpus.mention_at[index], text.mention_at[text_index]]),
                torch.cat([corpus.mention_facts[index], text.mention_facts[text_index]]),
            )
        optimizer.zero_grad(set_to_none=True)
        (answers + max(0.0, 1.0 - step / recipe.dense_steps) * dense + READ_OUT_WEIGHT * mentions).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 200 == 0 or step == pace.steps - 1:
            curve.append((step, answers.item(), dense.item(), mentions.item()))
            print("vlm step {}: answers {:.4f} dense {:.4f} mentions {:.4f}".format(*curve[-1]), flush=True)
    for hook in hooks:
        hook.remove()
    return curve


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over 500 steps, cosine to 2 %."""
    decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / 500) * decay


@torch.no_grad()
def exact_answers(model: TheWorld, corpus: Corpus | TextCorpus, *, batch_size: int) -> list[list[bool]]:
    """For every sample, whether each answer is produced exactly by greedy decoding.

    Read off one teacher-forced pass: an answer is greedily produced if and only if every one of its tokens is the most
    likely one after the right tokens before it.
    """
    result: list[list[bool]] = []
    for index in torch.arange(len(corpus.length), device=corpus.length.device).split(batch_size):
        rows = image_inputs(corpus, index) if isinstance(corpus, Corpus) else text_inputs(corpus, index)
        labels = rows.pop("labels")
        logits = model(**rows, logits_to_keep=0).logits
        right = (logits[:, :-1].argmax(-1) == labels[:, 1:]).cpu()
        target = (labels[:, 1:] >= 0).cpu()
        for row_right, row_target in zip(right, target, strict=True):
            result.append(_runs(row_right.tolist(), row_target.tolist()))
    return result


def _runs(right: list[bool], target: list[bool]) -> list[bool]:
    answers: list[bool] = []
    inside = False
    for is_right, is_target in zip(right, target, strict=True):
        if is_target and not inside:
            answers.append(True)
        if is_target:
            answers[-1] = answers[-1] and is_right
        inside = is_target
    return answers
