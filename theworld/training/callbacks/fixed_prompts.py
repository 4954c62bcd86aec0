"""The same few questions, answered again and again while the model trains, with what it sees beside what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch.distributed
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.seed import isolate_rng
from lightning.pytorch.utilities.types import STEP_OUTPUT
from PIL import Image
from torch import nn

from theworld.data.inspection.contact_sheet import Card, contact_sheet
from theworld.data.samples import OSDSamples, Prompts
from theworld.data.shown import show_row
from theworld.evaluation.answering import Answer, answer
from theworld.training.callbacks.throughput import Throughput
from theworld.training.module import TheWorldModule
from theworld.training.parallel.sharding import divide_again, is_sharded, keep_gathered
from theworld.training.parallel.strategy import FullySharded
from theworld.types import Batch, Question

FOLDER = "fixed_prompts"


@dataclass(frozen=True)
class _Prompt:
    """One of the questions; `number` is its sample's."""

    number: int
    question: Question
    image: Image.Image


class FixedPrompts(Callback):
    """Answers a few test questions before the first step and after every `every_n_steps` optimizer steps.

    With TensorBoard there is a picture a question, `fixed_prompts/<id>`, in which the regions are drawn and question,
    answer and ground truth stand below the image, and a text, `fixed_prompts`, with all of them. Without it the same
    goes to `<trainer.default_root_dir>/fixed_prompts`: `step=<n>.png` and `step=<n>.jsonl`, one question a line.

    Training is not changed: random states, training modes and divided weights are afterwards as they were before. The
    ranks share the questions out; with FSDP2 every rank gathers the weights first, so it needs room for all of them.

    Args:
        every_n_steps: 0 asks nothing.
        num_prompts: How many of the test questions, spread evenly over all of them.
        batch_size: Questions answered at a time.
        max_new_tokens: Longest answer, in tokens.
    """

    def __init__(
        self, *, every_n_steps: int = 0, num_prompts: int = 8, batch_size: int = 8, max_new_tokens: int = 32
    ) -> None:
        for name, value, least in (
            ("every_n_steps", every_n_steps, 0),
            ("num_prompts", num_prompts, 1),
            ("batch_size", batch_size, 1),
            ("max_new_tokens", max_new_tokens, 1),
        ):
            if value < least:
                raise ValueError(f"found fixed_prompts.{name}={value}, expected at least {least}")
        self.every_n_steps = every_n_steps
        self.num_prompts = num_prompts
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self._samples: OSDSamples | None = None
        self._prompts: list[_Prompt] = []

    def on_train_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Choose the questions; a run that begins answers them before it has learned anything."""
        if not self.every_n_steps:
            return
        with isolate_rng():
            self._samples = _test_samples(trainer)
            self._prompts = _chosen(self._samples, self.num_prompts)
        if trainer.global_step == 0:
            self._ask(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TheWorldModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Answer them when it is time."""
        if self.every_n_steps and pl_module.steps_after(batch_idx) and trainer.global_step % self.every_n_steps == 0:
            self._ask(trainer, pl_module)

    def _ask(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        with isolate_rng(), _evaluating(pl_module.world), _gathered(trainer, pl_module.world):
            own = self._answers(trainer, pl_module)
        answers = _over_ranks(trainer, own)
        for callback in trainer.callbacks:
            if isinstance(callback, Throughput):  # this was no training
                callback.on_validation_start(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        texts = [answers[prompt.question.id] for prompt in self._prompts]
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        for logger in boards:
            _to_tensorboard(logger, self._prompts, texts, trainer.global_step)
        if not boards:
            _to_folder(Path(trainer.default_root_dir) / FOLDER, self._prompts, texts, trainer.global_step)

    def _answers(self, trainer: Trainer, pl_module: TheWorldModule) -> list[Answer]:
        """Those of this rank."""
        assert self._samples is not None, "on_train_start comes first"
        own = self._prompts[trainer.global_rank :: trainer.world_size]
        samples = (self._samples.prompt(prompt.number) for prompt in own)
        with trainer.precision_plugin.val_step_context():
            return list(
                answer(
                    pl_module.world,
                    self._samples.processor,
                    samples,
                    batch_size=self.batch_size,
                    max_new_tokens=self.max_new_tokens,
                )
            )


def _test_samples(trainer: Trainer) -> OSDSamples:
    """The test rows of the run.

    Raises:
        ValueError: There are none.
    """
    try:
        trainer.datamodule.setup("test")
        prompts = trainer.datamodule.test_dataloader().batches.dataset
    except ValueError as error:
        raise ValueError(
            f"fixed_prompts.every_n_steps asks test questions while the model trains, but {error}"
        ) from error
    assert isinstance(prompts, Prompts), "what a data module tests on"
    return prompts.samples


def _chosen(samples: OSDSamples, count: int) -> list[_Prompt]:
    numbers = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)).tolist()
    chosen = []
    for number in numbers:
        shown = show_row(
            samples.store,
            samples.index,
            int(samples.index.eligible[number]),
            row_format=samples.row_format,
            region_style=samples.region_style,
        )
        chosen.append(_Prompt(number, samples.question(number), shown.image))
    return chosen


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode; afterwards each module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training


@contextmanager
def _gathered(trainer: Trainer, model: nn.Module) -> Iterator[None]:
    """With divided weights whole on every rank, because ranks make different numbers of passes."""
    if not is_sharded(model):
        yield
        return
    strategy = trainer.strategy
    again = strategy.reshard_after_forward if isinstance(strategy, FullySharded) else True
    keep_gathered(model)
    try:
        yield
    finally:
        divide_again(model, reshard_after_forward=again)


def _over_ranks(trainer: Trainer, own: Sequence[Answer]) -> dict[str, str]:
    """The texts of all ranks' answers, by the id of their question."""
    texts = {answered.id: answered.text for answered in own}
    if trainer.world_size == 1:
        return texts
    gathered: list[dict[str, str]] = [{} for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(gathered, texts)
    return {id: text for part in gathered for id, text in part.items()}


def _card(prompt: _Prompt, text: str) -> Card:
    question = prompt.question
    notes = (question.qa_category, f"truth: {question.answer}")
    return Card(title=question.id, notes=notes, image=prompt.image, turns=((question.question, text or "(no text)"),))


def _to_tensorboard(logger: TensorBoardLogger, prompts: Sequence[_Prompt], texts: Sequence[str], step: int) -> None:
    lines = ["| id | question | answer | truth |", "|---|---|---|---|"]
    for prompt, text in zip(prompts, texts, strict=True):
        question = prompt.question
        picture = contact_sheet([_card(prompt, text)], title=f"step {step}")
        logger.experiment.add_image(f"{FOLDER}/{question.id}", np.asarray(picture), global_step=step, dataformats="HWC")
        cells = (question.id, question.question, text, question.answer)
        lines.append("| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |")
    logger.experiment.add_text(FOLDER, "\n".join(lines), global_step=step)


def _to_folder(folder: Path, prompts: Sequence[_Prompt], texts: Sequence[str], step: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cards = [_card(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    contact_sheet(cards, title=f"step {step}").save(folder / f"step={step}.png")
    lines = []
    for prompt, text in zip(prompts, texts, strict=True):
        question = asdict(prompt.question)
        row = {"step": step, "ground_truth": question.pop("answer"), "prediction": text} | question
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    (folder / f"step={step}.jsonl").write_text("".join(lines), encoding="utf-8")
