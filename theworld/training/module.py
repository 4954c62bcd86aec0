"""The LightningModule: it loads the model, turns a `Batch` into a loss, and hands the rest to pure functions.

    Batch → TheWorld → Σ cross-entropy ÷ target tokens of the whole optimizer step

What trains comes from `optimizer_rules`, how fast from `stages`; `callbacks/stage_schedule.py` walks through them. A
checkpoint holds only what some stage trains; everything else comes from the base again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torchmetrics import MeanMetric

from theworld.evaluation.answering import answer_batch
from theworld.evaluation.report import Prediction
from theworld.models.attention.backends import AttentionBackend, check_backend
from theworld.models.live_rows import with_live_rows
from theworld.models.low_bit import check_low_bit_base
from theworld.models.theworld import TheWorld, TheWorldOutput
from theworld.training import optimizers
from theworld.training.base_loading import load_base
from theworld.training.checkpoint_contents import check_checkpoint, trained_weights
from theworld.training.host_numbers import is_logged, log_numbers
from theworld.training.optimizer_rules import OptimizerGroup, optimizer_param_groups, set_trainable
from theworld.training.parallel.clipping import clip
from theworld.training.placeholders import check_placeholders, note_drawn
from theworld.training.resumption import ProgressUnit, UnitState
from theworld.training.stages import Schedule, Stage
from theworld.types import Batch, PromptBatch


class TheWorldModule(LightningModule):
    """Trains, validates and tests a `TheWorld`.

    Args:
        base: What to start from: a Gemma 3 directory or Hub name, an export of ours, or `theworld-tiny`.
        cosmos_model: Directory or Hub name that holds the Cosmos VAE; by default the base's own, or Cosmos-Predict2.
        stages: Stages by name, in the order in which they run. Needed to fit and to load a checkpoint.
        enable_world: Whether the model has a world branch; without it this is Gemma 3.
        world_projection_mode: `spatial`: a world token per latent cell. `channel`: one per latent channel.
        projection_architecture: Layers of the projector: `mlp` or `linear`.
        world_image_size: Side in pixels of the square frame the world encoder sees.
        num_world_steps: Future latent frames beside the present one.
        max_world_steps: Largest `num_world_steps` the model accepts.
        world_tokens_per_frame: World tokens of a latent frame in spatial mode, a square; by default one a cell.
        random_world_tokens_per_frame: At most so many, of which a training sample draws one number in every epoch.
        world_latent_shape: Channels and stride in pixels of a world source's latents, if not the VAE's (hidden states
            of Cosmos-Predict2 2B: [2048, 16]).
        bidirectional_world: Let the world tokens of a sample see each other in both directions.
        attention_backend: Kernel of the language model's attention: `sdpa` (any device); on a GPU with bfloat16 also
            `flex`, `flash`, or `flash4` (the fastest on Hopper; needs the extra `flash4`).
        compile_layers: Compile the layers one by one (`theworld.models.execution`); pays on a GPU.
        dtype: Type in which weights are loaded. With `adamw` what trains is kept in float32 whatever is chosen here.
        optimizer: `adamw`: float32 masters. `adamw_bf16`: bfloat16 weights and moments, rounded stochastically.
            `adamw_8bit`: moments of 8 bits. See `theworld.training.optimizers` for their memory.
        low_bit_base: Round the language model's matrices to 8 bits, for a small card; only where it never trains.
        weight_decay: AdamW's decay of matrices; norms, biases and embeddings have none.
        betas: AdamW's decay rates of the first and second moment.
        max_new_tokens: Longest answer that is generated, in tokens.
    """

    def __init__(
        self,
        *,
        base: str,
        cosmos_model: str | None = None,
        stages: dict[str, Stage] | None = None,
        enable_world: bool = True,
        world_projection_mode: Literal["spatial", "channel"] = "spatial",
        projection_architecture: Literal["mlp", "linear"] = "mlp",
        world_image_size: int = 512,
        num_world_steps: int = 0,
        max_world_steps: int = 16,
        world_tokens_per_frame: int | None = None,
        random_world_tokens_per_frame: list[int] | None = None,
        world_latent_shape: tuple[int, int] | None = None,
        bidirectional_world: bool = False,
        attention_backend: AttentionBackend = "sdpa",
        compile_layers: bool = False,
        dtype: Literal["float32", "bfloat16"] = "bfloat16",
        optimizer: optimizers.OptimizerChoice = "adamw",
        low_bit_base: bool = False,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        max_new_tokens: int = 32,
    ) -> None:
        super().__init__()
        self.base = base
        self.cosmos_model = cosmos_model
        self._schedule = Schedule(stages) if stages else None
        self.enable_world = enable_world
        self.world_projection_mode = world_projection_mode
        self.projection_architecture = projection_architecture
        self.world_image_size = world_image_size
        self.num_world_steps = num_world_steps
        self.max_world_steps = max_world_steps
        self.world_tokens_per_frame = world_tokens_per_frame
        self.random_world_tokens_per_frame = random_world_tokens_per_frame
        self.world_latent_shape = world_latent_shape
        self.bidirectional_world = bidirectional_world
        check_backend(attention_backend, bidirectional_world=bidirectional_world)
        self.attention_backend = attention_backend
        self.compile_layers = compile_layers
        self.load_dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
        optimizers.check_optimizer(optimizer, dtype=self.load_dtype)
        self.optimizer_choice = optimizer
        if low_bit_base:
            check_low_bit_base(self._schedule.groups if self._schedule else ())
        self.low_bit_base = low_bit_base
        self.weight_decay = weight_decay
        self.betas = betas
        self.max_new_tokens = max_new_tokens
        self.strict_loading = False  # a checkpoint lacks the frozen weights; on_load_checkpoint checks it exactly
        self.model: TheWorld | None = None
        self.validation_loss = MeanMetric()
        self.corrects_failures = False  # callbacks/quarantine.py does, and tells us by how much in each step:
        self.loss_correction = 1.0
        self._step_loss: Tensor | float = 0.0
        self._progress_unit = ProgressUnit()

    @property
    def world(self) -> TheWorld:
        """The model, once Lightning has called `configure_model`."""
        assert self.model is not None, "configure_model has not run yet"
        return self.model

    @property
    def schedule(self) -> Schedule:
        """The stages, which fitting and loading a checkpoint need."""
        if self._schedule is None:
            raise ValueError(
                "found no stages, expected at least one to train or to load a checkpoint; set model.stages"
            )
        return self._schedule

    @schedule.setter
    def schedule(self, schedule: Schedule) -> None:
        self._schedule = schedule  # callbacks/stage_plateau.py, when a stage ends early

    def configure_model(self) -> None:
        """Load the model once. What any stage trains is marked as trainable here, before a strategy wraps it."""
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        precision = str(self.trainer.precision)
        optimizers.check_precision(self.optimizer_choice, dtype=self.load_dtype, precision=precision, fitting=fitting)
        if self.model is None:
            load = partial(
                TheWorld.from_pretrained,
                self.base,
                cosmos_model=self.cosmos_model,
                enable_world=self.enable_world,
                dtype=self.load_dtype,
                world_projection_mode=self.world_projection_mode,
                projection_architecture=self.projection_architecture,
                world_image_size=self.world_image_size,
                num_world_steps=self.num_world_steps,
                max_world_steps=self.max_world_steps,
                world_tokens_per_frame=self.world_tokens_per_frame,
                world_latent_shape=self.world_latent_shape,
                bidirectional_world=self.bidirectional_world,
            )
            self.model = load_base(self.trainer.strategy, load, low_bit=self.low_bit_base).train()
            self.model.attention_backend = self.attention_backend
            check_placeholders(self.world.config, getattr(self.trainer.datamodule, "processor", None))
        if fitting:
            note_drawn(self.world.config, self.random_world_tokens_per_frame, self.trainer.datamodule)
            set_trainable(self.model, self.schedule.groups)
            optimizers.prepare_weights(self.optimizer_choice, self.world, self.schedule.groups)

    def forward(self, batch: Batch) -> TheWorldOutput:
        """Weighted sum of the cross-entropy over the batch's targets, and their number."""
        return self.world(
            batch.input_ids,
            token_type_ids=batch.token_type_ids,
            position_ids=batch.position_ids,
            document_ids=batch.document_ids,
            pixel_values=batch.pixel_values,
            world_pixel_values=batch.world_pixel_values,
            image_features=batch.image_features,
            world_latents=batch.world_latents,
            labels=batch.labels,
            target_positions=batch.target_positions,
            target_weights=batch.target_weights,
            live_rows=batch.live_rows,
            world_token_counts=batch.world_token_counts,
        )

    def on_before_batch_transfer(self, batch: Batch | PromptBatch, dataloader_idx: int) -> Batch | PromptBatch:
        """Plan, while the batch is on the CPU, which rows the last layers compute in training."""
        if not (self.trainer.training and isinstance(batch, Batch)):
            return batch
        planned = with_live_rows(batch, self.world.config)
        return planned.pin_memory() if self.device.type == "cuda" else planned

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """This micro-batch's share of the step's loss, scaled up by what Lightning and DDP divide by later."""
        if batch.failed and not self.corrects_failures:
            raise ValueError(
                f"{batch.failed[0].id} could not be read: {batch.failed[0].reason} To go on without such samples, add "
                "theworld.training.callbacks.quarantine.Quarantine to trainer.callbacks"
            )
        loss = self(batch).loss_sum / batch.step_target_tokens
        self._step_loss = self._step_loss + loss.detach()
        if self.steps_after(batch_idx):
            step_loss = self._step_loss * self.loss_correction
            self.log("train/loss", step_loss, sync_dist=True, reduce_fx="sum", batch_size=1)
            self._step_loss = 0.0
        return loss * self.trainer.accumulate_grad_batches * self.trainer.world_size

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Mean cross-entropy over every target token of the validation set, exact whatever the batches."""
        if batch.num_target_tokens:
            self.validation_loss.update(self(batch).loss_sum / batch.num_target_tokens, weight=batch.num_target_tokens)
        self.log("val/loss", self.validation_loss, prog_bar=True, batch_size=1)

    def test_step(self, prompts: PromptBatch, batch_idx: int) -> STEP_OUTPUT:
        """Greedy answers to held-out questions, under the key `predictions`."""
        return {"predictions": self.answer(prompts)}

    def predict_step(self, prompts: PromptBatch, batch_idx: int) -> list[dict[str, str]]:
        """The same answers as plain dictionaries: Lightning copies what a prediction loop returns field by field."""
        return [answer.row() for answer in self.answer(prompts)]

    def answer(self, prompts: PromptBatch) -> list[Prediction]:
        """Generate one answer a question, greedily, up to the end of the turn."""
        processor = self.trainer.datamodule.processor
        answers = answer_batch(self.world, processor, prompts.batch, max_new_tokens=self.max_new_tokens)
        return [Prediction(question=q, text=a.text) for q, a in zip(prompts.questions, answers, strict=True)]

    def on_train_start(self) -> None:
        """Put Lightning's counters right if the run goes on with another number of devices."""
        if (changed := self._progress_unit.begin(self.trainer)) is not None:
            self.print(changed)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rates of the coming optimizer step; a function of the step, so a resume needs no state."""
        rates = {group: self.schedule.learning_rate(group, self.global_step) for group in self.schedule.groups}
        optimizers.set_learning_rates(self.trainer.optimizers[0], rates)
        if self.steps_after(batch_idx) and is_logged(self.trainer, self.global_step + 1):
            log_numbers(self.trainer, {f"lr/{group}": rate for group, rate in rates.items()})

    def steps_after(self, batch_idx: int) -> bool:
        """Whether the optimizer steps after micro-batch `batch_idx` of the epoch."""
        return (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch

    def finished_stage(self, batch_idx: int) -> str | None:
        """In `on_train_batch_end`: name of the stage that this micro-batch completed."""
        return self.schedule.finished(self.global_step) if self.steps_after(batch_idx) else None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over all that any stage trains; it skips, and keeps no state of, what has no gradient yet."""
        return optimizers.make_optimizer(self.optimizer_choice, self._optimizer_groups(), betas=self.betas)

    def _optimizer_groups(self) -> list[OptimizerGroup]:
        return optimizer_param_groups(self.world, groups=self.schedule.groups, weight_decay=self.weight_decay)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer,
        optimizer_closure: Callable[[], Tensor] | None = None,
    ) -> None:
        """Round stochastically, where the optimizer does, by numbers that depend on the step alone."""
        with optimizers.rounding_of_step(self.optimizer_choice, self.global_step, self.device):
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()  # Lightning does so behind the next forward pass, which would keep them: 8 GB in stage 3

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """`trainer.gradient_clip_val`, the same under every strategy and precision; logs the norm that it found."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = clip(parameters, gradient_clip_val, by_value=gradient_clip_algorithm == "value")
        if norm is not None and is_logged(self.trainer, self.global_step + 1):
            self.log("train/gradient_norm", norm, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Keep only the weights that some stage trains, and what Lightning counted its progress in."""
        checkpoint["state_dict"] = trained_weights(self.world, self.schedule.groups, prefix="model.")
        checkpoint["progress_unit"] = self._progress_unit.state(self.trainer)
        checkpoint["optimizer_choice"] = self.optimizer_choice

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Refuse a checkpoint that does not hold exactly the weights the stages train."""
        expected = trained_weights(self.world, self.schedule.groups, prefix="model.")
        check_checkpoint(checkpoint, weights=expected, param_groups=self._optimizer_groups())
        optimizers.check_same_optimizer(checkpoint, self.optimizer_choice)
        optimizers.prepare_weights(self.optimizer_choice, self.world, self.schedule.groups)
        self._progress_unit.load(cast(UnitState | None, checkpoint.get("progress_unit")))
