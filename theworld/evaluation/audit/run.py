"""One audit: the set is answered once with the towers running, then once an arm with what they made.

B prompts of a batch · N image tokens · S width of SigLIP · V vocabulary size
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress, TaskID
from torch import Tensor

from theworld.data.packing.collator import pad
from theworld.data.pictures.blank import GREY
from theworld.data.samples import OSDSamples, Prompts
from theworld.evaluation.answering import answer_batch
from theworld.evaluation.audit.arms import REAL, Arms, Group, arms_of
from theworld.evaluation.audit.attention_mass import attention_mass
from theworld.evaluation.audit.causes import check_world_branch, disconnections
from theworld.evaluation.audit.comparison import Answers, compare, judge
from theworld.evaluation.audit.findings import Findings, Settings
from theworld.evaluation.audit.recording import recorded
from theworld.evaluation.audit.signals import gradient_norms, loudness
from theworld.models.image_features import image_features
from theworld.models.interventions import intervene
from theworld.models.theworld import TheWorld
from theworld.types import Batch, PromptBatch


def audit(model: TheWorld, samples: OSDSamples, settings: Settings, *, progress: Progress, name: str = "") -> Findings:
    """Run all arms.

    Args:
        model: In `eval` mode, on the device that is to compute; its attention backend is set to `sdpa`.
        samples: Test rows, of one question each, with the processor that the model was trained with.
        settings: Of the audit.
        progress: Shows a task.
        name: Of the model, for the report.

    Raises:
        ValueError: No world branch, prompts without world tokens, or a set that the arms cannot be made for. An arm
            that makes no difference is no exception here, but one of `Findings.errors`.
    """
    model.attention_backend = "sdpa"
    prompts = Prompts(samples, batch_size=settings.batch_size)
    check_world_branch(model, prompts[0])
    names = arms_of(model)
    task = progress.add_task("Arm real", total=len(names) * len(prompts))
    auditor = _Auditor(model, samples, settings)
    groups: list[Group] = []
    for number in range(len(prompts)):
        groups.append(auditor.real(prompts[number], first=sum(len(group.texts) for group in groups)))
        progress.update(task, advance=1)
    arms = Arms(model, groups, blank_features=auditor.blank_features(), seed=settings.seed)
    replayed = auditor.replay_difference(arms, groups[0])
    answers = {REAL: _real_answers(groups)}
    for arm in [arm for arm in names if arm != REAL]:
        progress.update(task, description=f"Arm {arm}")
        answers[arm] = auditor.answers(arm, arms, groups, progress=progress, task=task)
    questions = tuple(question for group in groups for question in group.prompts.questions)
    batches = _teacher_forced(samples, settings.probes, model.device)
    mass, loud = attention_mass(model, batches), loudness(model, arms, groups)
    results = compare(questions, answers, logit_tolerance=replayed)
    return Findings(
        model=name,
        data=samples.store.name,
        questions=questions,
        answers=answers,
        results=results,
        verdict=judge(results, level=settings.level),
        errors=disconnections(results, groups, loudness=loud, mass=mass),
        mass=mass,
        loudness=loud,
        gradients=gradient_norms(model, batches),
        replay_difference=replayed,
        blank_image=samples.processor.blank_image,
        settings=settings,
    )


class _Auditor:
    """Answers the batches of a set, with the towers running or with an arm's inputs."""

    def __init__(self, model: TheWorld, samples: OSDSamples, settings: Settings) -> None:
        self._model = model
        self._processor = samples.processor
        self._settings = settings
        self._blank_pixels = self._processor.pixels(Image.new("RGB", (64, 64), GREY))  # (1, 3, H, W)

    def real(self, prompts: PromptBatch, *, first: int) -> Group:
        """The model's own way, with nothing in force; what its towers made is kept in place of the pixels."""
        batch = prompts.batch
        with recorded(self._model) as recording:
            texts = self._greedy(batch)
        made = recording.latents, recording.image_features, recording.logits
        latents, features, logits = made
        if latents is None or features is None or logits is None or {len(latents), len(features)} != {len(texts)}:
            counts = [0 if tensor is None else len(tensor) for tensor in made]
            raise ValueError(f"found {counts} world latents, images and logits, expected {len(texts)} of each")
        without_pixels = replace(
            batch, pixel_values=batch.pixel_values[:0], world_pixel_values=batch.world_pixel_values[:0]
        )
        return Group(
            prompts=replace(prompts, batch=without_pixels),
            first=first,
            latents=latents,
            image_features=features,
            shows_image=tuple(not torch.equal(pixels, self._blank_pixels[0]) for pixels in batch.pixel_values),
            frame_hashes=tuple(hashlib.sha256(f.numpy().tobytes()).hexdigest() for f in batch.world_pixel_values),
            texts=tuple(texts),
            logits=logits,
        )

    def answers(self, arm: str, arms: Arms, groups: Sequence[Group], *, progress: Progress, task: TaskID) -> Answers:
        """Of one arm, in the order of the set."""
        texts: list[str] = []
        changes: list[bool] = []
        differences: list[float] = []
        for group in groups:
            found, logits = self._intervened(arm, arms, group)
            texts += found
            changes += arms.changes(arm, group)
            differences += (logits - group.logits).abs().amax(dim=1).tolist()
            progress.update(task, advance=1)
        return Answers(texts=tuple(texts), changes=tuple(changes), logit_differences=tuple(differences))

    def replay_difference(self, arms: Arms, group: Group) -> float:
        """How much the logits of the real arm change when the towers' outputs are replayed; 0 if bit-identical.

        Raises:
            ValueError: An answer changes, so that arms that replay could not be compared with the one that did not.
        """
        texts, logits = self._intervened(REAL, arms, group)
        if tuple(texts) != group.texts:
            raise ValueError("found other answers when the towers' outputs are replayed, expected the same ones")
        return float((logits - group.logits).abs().max())

    @torch.no_grad()
    def blank_features(self) -> Tensor:
        """float[1, N, S], what SigLIP makes of the blank picture."""
        return image_features(self._model.gemma, self._blank_pixels.to(self._model.device)).cpu()

    def _intervened(self, arm: str, arms: Arms, group: Group) -> tuple[list[str], Tensor]:
        with recorded(self._model) as recording, intervene(self._model, arms.intervention(arm, group)):
            texts = self._greedy(group.prompts.batch)
        assert recording.logits is not None
        return texts, recording.logits  # (B, V)

    def _greedy(self, batch: Batch) -> list[str]:
        on_device, most = batch.to(self._model.device), self._settings.max_new_tokens
        return [one.text for one in answer_batch(self._model, self._processor, on_device, max_new_tokens=most)]


def _real_answers(groups: Sequence[Group]) -> Answers:
    texts = tuple(text for group in groups for text in group.texts)
    return Answers(texts=texts, changes=(False,) * len(texts), logit_differences=(0.0,) * len(texts))


def _teacher_forced(samples: OSDSamples, probes: int, device: torch.device) -> list[Batch]:
    """Samples evenly over the set with their answers, each a batch of its own."""
    numbers = np.linspace(0, len(samples) - 1, min(probes, len(samples))).round().astype(int).tolist()
    pad_token_id = samples.processor.pad_token_id
    return [pad([samples.read(n)], pad_token_id=pad_token_id, side="right").to(device) for n in numbers]
