"""What must hold before an audit answers anything, so that no arm is run for nothing and no file is half written.

W world frames · N tokens of one frame · D hidden size · B prompts · V vocabulary size
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from theworld.evaluation.answers import parse_truth
from theworld.evaluation.audit.arms import rms
from theworld.models.cosmos_encoder import CosmosEncoder
from theworld.models.theworld import TheWorld
from theworld.types import PromptBatch, Question, TokenType


def check_world_branch(model: TheWorld, prompts: PromptBatch) -> None:
    """Refuse a model or prompts without world tokens.

    Raises:
        ValueError: There is no world branch, no world placeholder, or no frame for them; or the branch gives a frame
            other tokens than its own.
    """
    if model.cosmos_encoder is None:
        raise ValueError(
            "found a model without a world branch (enable_world=False), so every arm would give the same answers; "
            "expected one with world tokens; load or train it with enable_world=True"
        )
    placeholders = int((prompts.batch.token_type_ids == TokenType.WORLD).sum())
    if not placeholders:
        raise ValueError(
            "found no world placeholders in the prompts: the processor has enable_world=False, expected True; the "
            "world branch is never switched on"
        )
    frames = prompts.batch.world_pixel_values
    if not len(frames):
        raise ValueError(
            f"found {placeholders} world placeholders and no world frames, expected one a prompt: the images never "
            "reach the world branch"
        )
    _check_frames_apart(model.cosmos_encoder, frames.to(model.device))


def check_weights(model: TheWorld) -> None:
    """Refuse a model with a weight that is no number.

    Raises:
        ValueError: A parameter holds NaN or infinity; the message names it.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            count = int((~torch.isfinite(parameter)).sum())
            raise ValueError(
                f"{name}: found {count} of {parameter.numel()} weights that are not finite, expected none; the export "
                "is broken: take an earlier checkpoint"
            )


def check_truths(questions: Sequence[Question], *, where: str) -> None:
    """Refuse questions that could not be scored once they are answered.

    Args:
        questions: All that will be asked.
        where: The file, for the message.

    Raises:
        ValueError: A category is unknown, contradicts its type, or a ground truth cannot be read; with the number of
            such questions and the first of them.
    """
    faults = []
    for question in questions:
        try:
            parse_truth(question)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError(
            f"{where}: {len(faults)} of {len(questions)} questions cannot be scored; the first: {faults[0]}"
        )


def check_logits(logits: Tensor, ids: Sequence[str], *, arm: str) -> None:
    """Refuse an answer that was chosen among logits that are no numbers.

    Args:
        logits: float32[B, V] of the first tokens.
        ids: Of the B questions.
        arm: For the message.

    Raises:
        ValueError: A question has NaN or infinity among them.
    """
    broken = [id for id, is_broken in zip(ids, (~torch.isfinite(logits)).any(dim=1).tolist(), strict=True) if is_broken]
    if broken:
        raise ValueError(
            f"arm {arm}: found logits that are not finite for {len(broken)} of {len(ids)} questions of a batch, "
            f"{broken[0]!r} for example, expected numbers; all weights are finite, so something overflows between "
            "them and the logits: compute in float32, or take an earlier checkpoint"
        )


@torch.no_grad()
def _check_frames_apart(encoder: CosmosEncoder, frames: Tensor) -> None:
    """See that a frame gets the same tokens alone as beside others, and those that projector and encoder make.

    A replay of the batch, which the arms are compared with, goes the same way as the batch and would not show it. What
    counts is how far two frames lie apart: half of that is far beyond rounding, and less than such a fault makes.
    """
    others = [row for row in range(len(frames)) if not torch.equal(frames[row], frames[-1])]
    if not others:
        return  # one frame everywhere, which is a fault of its own, or nothing beside it
    latents: list[Tensor] = []
    handle = encoder.projector.register_forward_pre_hook(lambda module, given: latents.append(given[0]))
    try:
        together = encoder(frames[[others[0], -1]])  # (2, N, D)
        other, last = encoder(frames[[others[0]]]), encoder(frames[-1:])  # (1, N, D)
    finally:
        handle.remove()
    made = encoder.projector(latents[0])  # (2, N, D)
    apart = rms(last - other) / 2
    if rms(together - made) > max(apart, rms(made) / 100):
        raise ValueError(
            "found other world tokens behind the world branch than its projector makes of its encoder's latents, "
            "expected the same: CosmosEncoder.forward drops or changes them on the way into the sequence; mend it"
        )
    rounding = 16 * torch.finfo(made.dtype).eps * rms(made)  # where the encoder makes the same of both, to the last bit
    if rms(together - torch.cat([other, last])) > max(apart, rounding):
        raise ValueError(
            "found other world tokens for a frame beside another one than for the same frame alone, "
            "expected the same: the world branch mixes the samples of a batch, or gives all of them one sample's "
            "tokens; mend it, then train again"
        )
