"""Why arms that should differ from the real one do not: what was checked, and the likeliest cause, by name.

Four things look alike in a table of accuracies and are not:

- An arm changed its inputs and every logit of the first new token is, bit for bit, that of the real arm: the branch is
  disconnected. An error: the audit measured nothing.
- An arm changed no input, because the world tokens (or the images) are the same in every sample, or 0. An error as
  well. (The blank pictures of a control differ from one another, so that this stays a fault.)
- An arm changed almost no input, or world tokens that are as good as the same everywhere. An error too: what few
  questions show would be said of all.
- Logits differ and every answer has the same text. No error: the model was given other tokens and answered the same.
  That is what not relying on them looks like, and the verdict says how sure the size of the set lets one be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from theworld.evaluation.audit.arms import FUTURE, WORLD_ARMS, Group
from theworld.evaluation.audit.attention_mass import AttentionMass
from theworld.evaluation.audit.comparison import ArmResult
from theworld.evaluation.audit.signals import Loudness
from theworld.evaluation.audit.verdict import Verdict
from theworld.models.interventions import future_is_present

LEAST_EXCHANGED = 0.9
"""Of all questions, the fewest that an exchange must give other inputs; of all frames, the fewest different tokens."""

LEAST_VARYING = 0.01
"""Of the size of the world tokens, the least that must differ between samples, unless the model is shown to rely on it.

`Loudness.world_varying` measures it: 0.27 in the control whose world tokens are those of plain colours.
"""


def disconnections(
    results: Sequence[ArmResult],
    groups: Sequence[Group],
    *,
    loudness: Loudness,
    mass: AttentionMass,
    verdict: Verdict,
) -> tuple[str, ...]:
    """An error each for the world branch and for the image, if arms gave what the real one gave; none if all is well.

    Of the world branch's future frames it is said only where the branch as a whole is read.

    Args:
        results: Of all arms.
        groups: The audited set.
        loudness: Of its world tokens.
        mass: Attention of a few of its samples.
        verdict: What the arms would say.
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
    elif weak := _why_weak(by_arm["shuffled"], groups, loudness, verdict):
        errors.append(f"shuffled: {weak}")
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
    elif image.inputs_changed < LEAST_EXCHANGED * image.n:
        errors.append(
            f"image_removed: found {image.n - image.inputs_changed} of {image.n} pictures that are plain grey already, "
            f"expected at most {100 * (1 - LEAST_EXCHANGED):.0f} %; those images are blank or missing"
        )
    return tuple(errors)


def _why_weak(shuffled: ArmResult, groups: Sequence[Group], loudness: Loudness, verdict: Verdict) -> str | None:
    """Why an exchange of these world tokens would show next to nothing; None if it shows something."""
    frames = Counter(frame for group in groups for frame in group.frame_hashes)
    same = f"{max(frames.values())} of {shuffled.n} frames are one and the same picture"
    if shuffled.inputs_changed < LEAST_EXCHANGED * shuffled.n:
        return (
            f"found other world tokens than in the real arm for {shuffled.inputs_changed} of {shuffled.n} questions "
            f"only, expected at least {100 * LEAST_EXCHANGED:.0f} %: {same}, and what the others show would be said of "
            "all; see that the images are there and reach the world encoder"
        )
    if loudness.distinct_world < LEAST_EXCHANGED * len(frames):
        return (
            f"found {loudness.distinct_world} different world tokens for {len(frames)} different frames, expected as "
            "many: the world branch gives several samples one sample's tokens; mend it, then train again"
        )
    if loudness.world_varying < LEAST_VARYING and verdict.world != "relies":
        return (
            f"found world tokens that differ between samples by {100 * loudness.world_varying:.2g} % of their size, "
            f"expected at least {100 * LEAST_VARYING:g} %: they are as good as constant, and an exchange takes "
            "away next to nothing; the projector's bias drowns its input: train it longer, or at another rate"
        )
    return None


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
        f"the projector makes the same world tokens of {len(frames)} different frames; its weights are 0, or next to "
        "nothing beside its bias"
    )
