"""Why arms that should differ from the real one do not: what was checked, and the likeliest cause, by name.

Three things look alike in a table of accuracies and are not:

- An arm changed its inputs and every logit of the first new token is, bit for bit, that of the real arm: the branch is
  disconnected. An error: the audit measured nothing.
- An arm changed no input, because the world tokens (or the images) are the same in every sample, or 0. An error as
  well. (The blank pictures of a control differ from one another, so that this stays a fault.)
- Logits differ and every answer has the same text. No error: the model was given other tokens and answered the same.
  That is what not relying on them looks like, and the verdict says how sure the size of the set lets one be.
"""

from __future__ import annotations

from collections.abc import Sequence

from theworld.evaluation.audit.arms import FUTURE, WORLD_ARMS, Group
from theworld.evaluation.audit.attention_mass import AttentionMass
from theworld.evaluation.audit.comparison import ArmResult
from theworld.evaluation.audit.signals import Loudness
from theworld.models.interventions import future_is_present
from theworld.models.theworld import TheWorld
from theworld.types import PromptBatch, TokenType


def check_world_branch(model: TheWorld, prompts: PromptBatch) -> None:
    """Refuse, before anything is answered, a model or prompts without world tokens.

    Raises:
        ValueError: There is no world branch, no world placeholder, or no frame for them.
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
    if not len(prompts.batch.world_pixel_values):
        raise ValueError(
            f"found {placeholders} world placeholders and no world frames, expected one a prompt: the images never "
            "reach the world branch"
        )


def disconnections(
    results: Sequence[ArmResult],
    groups: Sequence[Group],
    *,
    loudness: Loudness,
    mass: AttentionMass,
) -> tuple[str, ...]:
    """An error each for the world branch and for the image, if arms gave what the real one gave; none if all is well.

    Of the world branch's future frames it is said only where the branch as a whole is read.

    Args:
        results: Of all arms.
        groups: The audited set.
        loudness: Of its world tokens.
        mass: Attention of a few of its samples.
    """
    by_arm = {result.arm: result for result in results}
    errors = []
    unchanged = [arm for arm in WORLD_ARMS if not by_arm[arm].inputs_changed]
    disconnected = [arm for arm in WORLD_ARMS if by_arm[arm].is_disconnected]
    if disconnected:
        cause = _why_unread(mass)
        errors.append(
            f"{', '.join(disconnected)}: found the very logits of the real arm, bit for bit, for all "
            f"{by_arm['real'].n} questions, expected others: {cause}"
        )
    elif unchanged:
        errors.append(
            f"{', '.join(unchanged)}: found the same inputs as in the real arm: {_why_same(groups, loudness)}"
        )
    elif FUTURE in by_arm and (error := _future_error(by_arm[FUTURE], groups)):
        errors.append(error)
    image = by_arm["image_removed"]
    if image.is_disconnected:
        errors.append(
            f"image_removed: found the very logits of the real arm, bit for bit, for all {image.n} questions, "
            "expected others: nothing after the image tokens attends to them, or the vision branch is not read"
        )
    elif not image.inputs_changed:
        errors.append(
            "image_removed: found the same inputs as in the real arm: every picture is plain grey already; the images "
            "of the data set are blank or missing"
        )
    return tuple(errors)


def _future_error(result: ArmResult, groups: Sequence[Group]) -> str | None:
    if result.is_disconnected:
        return (
            f"{FUTURE}: found the very logits of the real arm, bit for bit, for all {result.n} questions, expected "
            "others: no answer sees a world token of a future frame"
        )
    if result.inputs_changed:
        return None
    still = all(bool((future_is_present(group.latents) == group.latents).all()) for group in groups)
    cause = "the world source repeats the present frame" if still else "the projector does not tell frames apart"
    return f"{FUTURE}: found the same inputs as in the real arm: {cause}"


def _why_unread(mass: AttentionMass) -> str:
    if not mass.is_reachable:
        return (
            "no mask of any layer lets an answer see a world token, so the world tokens are blocked already, or lie "
            "beyond the sliding window of every layer"
        )
    return (
        "the masks let answers see world tokens, yet what is in the placeholders changes nothing: the forward does not "
        "put the world branch's tokens into the sequence, or the language model ignores them exactly (weights of 0)"
    )


def _why_same(groups: Sequence[Group], loudness: Loudness) -> str:
    if loudness.world == 0.0:
        return "the projector's output is 0 everywhere; its weights are 0, it was never trained or was overwritten"
    frames = {frame for group in groups for frame in group.frame_hashes}
    if len(frames) == 1:
        return (
            "the world encoder is given the same frame in every sample; the images are missing or blank in the data "
            "set, or were never passed on"
        )
    latents = [row for group in groups for row in group.latents]
    if all(bool((row == latents[0]).all()) for row in latents):
        return f"the world encoder makes the same latent of {len(frames)} different frames; its weights are broken"
    return (
        f"the projector makes the same world tokens of {len(frames)} different frames; its weights are 0 and only its "
        "bias speaks"
    )
