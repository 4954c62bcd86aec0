"""Pretrains the tiny Gemma-3 VLM on questions about single regions (what, which colour, where), never about two.

The language-model loss is the package's own. Beside it the vision tower gets a dense loss for the first part of
training: from every patch, read the kind and the colour of what it shows and which drawn regions enclose it. Without
it the tower learns to see only through a few answer tokens, and needs many times as many steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
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
    enclosed bool[N, R, P, P]
    """

    input_ids: Tensor
    labels: Tensor
    token_type_ids: Tensor
    length: Tensor
    images: Tensor
    kinds: Tensor
    colours: Tensor
    enclosed: Tensor

    def rows(self, index: Tensor) -> dict[str, Tensor]:
        """The model's inputs for some samples, padded to the corpus length."""
        input_ids = self.input_ids[index].long()
        real = torch.arange(input_ids.shape[1], device=index.device) < self.length[index, None]
        return {
            "input_ids": input_ids,
            "labels": self.labels[index].long(),
            "token_type_ids": self.token_type_ids[index].long(),
            "document_ids": torch.where(real, 0, PADDING_DOCUMENT),
            "pixel_values": self.images[index].float() / 127.5 - 1.0,
        }


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


def pretrain_vlm(
    model: TheWorld,
    heads: DenseHeads,
    corpus: Corpus,
    *,
    steps: int,
    max_seconds: float | None,
    dense_steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> list[tuple[int, float, float]]:
    """Trains everything in `model.gemma`; returns (step, answer loss, dense loss) of the training curve."""
    device = corpus.images.device
    generator = torch.Generator(device=device).manual_seed(seed)
    parameters = [*model.gemma.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
    patches: list[Tensor] = []
    tower = model.gemma.model.vision_tower
    hook = tower.register_forward_hook(lambda _module, _inputs, output: patches.append(output.last_hidden_state))
    curve = []
    pace = Pace(steps, max_seconds)
    for step in pace:
        steps = pace.steps
        for group in optimizer.param_groups:
            decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
            group["lr"] = learning_rate * min(1.0, (step + 1) / 500) * decay
        index = torch.randint(len(corpus.length), (batch_size,), generator=generator, device=device)
        rows = corpus.rows(index)
        patches.clear()
        with torch.autocast(device.type, torch.bfloat16):
            output = model(**rows, target_positions=find_target_positions(rows["labels"]))
            dense = heads(patches[0], corpus.kinds[index], corpus.colours[index], corpus.enclosed[index])
        weight = max(0.0, 1.0 - step / dense_steps)
        optimizer.zero_grad(set_to_none=True)
        (output.loss + weight * dense).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 200 == 0 or step == steps - 1:
            curve.append((step, output.loss.item(), dense.item()))
            print(f"vlm step {step}: answers {curve[-1][1]:.4f} dense {curve[-1][2]:.4f}", flush=True)
    hook.remove()
    return curve


@torch.no_grad()
def exact_answers(model: TheWorld, corpus: Corpus, *, batch_size: int) -> list[list[bool]]:
    """For every sample, whether each answer is produced exactly by greedy decoding.

    Read off one teacher-forced pass: an answer is greedily produced if and only if every one of its tokens is the most
    likely one after the right tokens before it.
    """
    result: list[list[bool]] = []
    for index in torch.arange(len(corpus.length), device=corpus.images.device).split(batch_size):
        rows = corpus.rows(index)
        labels = rows.pop("labels")
        hidden_logits = model(**rows, logits_to_keep=0).logits
        right = (hidden_logits[:, :-1].argmax(-1) == labels[:, 1:]).cpu()
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
