"""Do the arms of a seed train on the same samples in the same steps, and answer the same questions? Asked before a run.

Arms differ in the length of a sample, because their prompts have other numbers of world tokens, and samples are packed
by length. Two settings of the budget make the plan the same all the same: a row ends by `max_images_per_row`, and
`token_budget` holds that many of the longest samples in every arm. Then only the order of the lengths matters, and that
does not change when each sample grows by the same number of tokens. What is compared here is the outcome: which
samples, with how many target tokens (so that no arm drops a turn that another one keeps), lie in which step.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from theworld.cli import TheWorldCLI
from theworld.data.datamodule import OSDDataModule
from theworld.data.packing.loader import PlanLoader
from theworld.training.module import TheWorldModule


@dataclass(frozen=True)
class Order:
    """What a run will see.

    Attributes:
        stages: Name → optimizer steps.
        steps: One text an optimizer step: the ids of its samples, each with the number of its target tokens.
        questions: sha256 of the test questions with their truths.
    """

    stages: Mapping[str, int]
    steps: tuple[str, ...]
    questions: str

    @property
    def sha256(self) -> str:
        """One hash of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def order_of(words: Sequence[str]) -> Order:
    """The order of `theworld fit` with these options. Draws the scenes if they are not there yet."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that are given in place of a command line
        cli = TheWorldCLI(TheWorldModule, OSDDataModule, run=False, save_config_callback=None, args=list(words))
        data, schedule = cli.datamodule, cli.model.schedule
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
        steps = [text for text, _ in zip(_steps(data.train_dataloader()), range(schedule.total_steps), strict=False)]
        asked = [asdict(question) for question in data.test_dataloader().batches.dataset.questions]
    lengths = {name: stage.max_steps for name, stage in zip(schedule.names, schedule.stages, strict=True)}
    return Order(lengths, tuple(steps), hashlib.sha256(json.dumps(asked).encode()).hexdigest())


def check_same_order(reference: str, orders: Mapping[str, Order]) -> None:
    """Compare the arms of one seed.

    Args:
        reference: The arm that the others are compared with.
        orders: Arm → order.

    Raises:
        ValueError: Arms differ in stages, in a step's samples or their targets, or in the test questions.
    """
    expected = orders[reference]
    for arm, found in orders.items():
        if found.stages != expected.stages:
            raise ValueError(
                f"{arm}: found stages of {dict(found.stages)} optimizer steps, expected those of {reference}, "
                f"{dict(expected.stages)}; an arm changes rates, not the length of training"
            )
        for number, (own, others) in enumerate(zip(found.steps, expected.steps, strict=True)):
            if own != others:
                raise ValueError(
                    f"{arm}: found the samples {own} in step {number}, expected {others} as in {reference} (id:target "
                    "tokens); give both the same data.max_images_per_row, and a data.token_budget and a "
                    "data.max_seq_length that hold so many of the longest samples with all their turns"
                )
        if found.questions != expected.questions:
            raise ValueError(
                f"{arm}: found other test questions than {reference} has, expected the same; leave the data settings "
                "to the budget"
            )


def _steps(loader: PlanLoader) -> Iterator[str]:
    """Epoch after epoch."""
    mixture, epoch = loader.mixture, 0
    while True:
        plan = loader.plan_of(epoch)
        for number in range(plan.num_steps):
            samples = np.concatenate(plan.step(number)).tolist()
            yield " ".join(f"{mixture.id(sample)}:{mixture.targets[sample]}" for sample in samples)
        epoch += 1
