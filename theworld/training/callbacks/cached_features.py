"""Lets the data come from the feature cache as long as the towers are those that it was made with."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer

from theworld.data.datamodule import OSDDataModule
from theworld.data.features.steps import CachedSteps
from theworld.models.towers import TOWER_FACTS, TOWER_GROUPS, Feature, encoder_facts
from theworld.models.world_sources.attach import refuse_other_source
from theworld.training.module import TheWorldModule
from theworld.types import Batch

_FIX = (
    "Make it again with `theworld data cache`, with this run's base, cosmos_model, num_world_steps (as that of its "
    "rollout), dtype, precision and device (and "
    "--trained_later=[{feature}] if a later stage trains that tower: the run keeps it in float32 from its first step "
    "on), or leave out the features of the data."
)


class CachedFeatures(Callback):
    """Uses the caches of the data (`data.train_features` and others) up to the first step that trains their tower.

    Which steps these are follows from the stages alone; a cache whose tower trains from the beginning is not looked at.
    Before the first batch, of validation too, the towers' weights, the model's number of world steps, and the run's
    precision and device are compared with what the caches were made with. Without caches this does nothing. Prints one
    line.
    """

    def __init__(self) -> None:
        self._until: dict[Feature, int] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Tell the data which steps may use a cache."""
        self._until = {}
        data = trainer.datamodule
        if not isinstance(data, OSDDataModule) or not data.features:
            return
        cached = {store.manifest.feature for store in data.features}
        until = {feature: pl_module.schedule.untouched_until(group) for feature, group in TOWER_GROUPS.items()}
        self._until = {feature: step for feature, step in until.items() if feature in cached and step > 0}
        data.use_features(CachedSteps({str(feature): step for feature, step in self._until.items()}))

    def on_sanity_check_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Check before the validation that comes before training."""
        self._check(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Check before the first batch, and say what is cached."""
        self._check(trainer, pl_module)
        self._note_source(trainer, pl_module)
        if self._until:
            steps = ", ".join(f"{feature} up to step {until}" for feature, until in self._until.items())
            pl_module.print(f"From the cache: {steps}")

    def on_train_batch_start(self, trainer: Trainer, pl_module: TheWorldModule, batch: Batch, batch_idx: int) -> None:
        """Refuse features of a tower that has trained: trainer and data count steps each by themselves."""
        for feature, until in self._until.items():
            if getattr(batch, feature) is not None and trainer.global_step >= until:
                raise ValueError(
                    f"found cached {feature} in optimizer step {trainer.global_step}, expected them before step "
                    f"{until} only, when their tower begins to train; the trainer makes other steps than the data "
                    "planned: make limit_train_batches a multiple of accumulate_grad_batches, or use no features."
                )

    def _note_source(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Write into the model's config, and so into exports, what made the latents that it is trained on."""
        if "world_latents" not in self._until:
            return
        config = pl_module.world.config
        for store in trainer.datamodule.features:
            if store.manifest.feature == "world_latents":
                facts = {n: v for n, v in store.manifest.encoder.items() if n not in TOWER_FACTS} or None
                refuse_other_source(config.world_source, facts or {})
                config.world_source = facts

    def _check(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Compare the caches that this run can still use with its towers."""
        for feature, until in self._until.items():
            if trainer.global_step > until:
                continue
            facts = encoder_facts(pl_module.world, feature, precision=str(trainer.precision))
            if feature == "world_latents":
                facts |= {"num_world_steps": str(pl_module.world.config.num_world_steps)}
            for store in trainer.datamodule.features:
                if store.manifest.feature == feature:
                    store.refuse_other(facts, fix=_FIX.format(feature=feature))
