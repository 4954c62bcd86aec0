"""The data of a run, for Lightning: rows and images (or synthetic scenes in OSD's schema) to planned batches."""

from __future__ import annotations

from functools import partial
from typing import Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only

from theworld.data.features.steps import LIVE, CachedSteps
from theworld.data.features.store import FeatureStore
from theworld.data.packing.loader import FixedLoader, LoaderState, PlanLoader
from theworld.data.packing.mixture import Mixture
from theworld.data.packing.packed_rows import fixed_rows
from theworld.data.packing.step_size import check_step_size, steps_to_overfit
from theworld.data.pictures.blank import BlankImage
from theworld.data.pictures.regions import RegionStyle
from theworld.data.processor import TheWorldProcessor
from theworld.data.samples import OSDSamples, Prompts
from theworld.data.shards.node_cache import CACHE_BYTES, CACHE_FOLDER
from theworld.data.splits import SourceConfig, SourceOpener, check_cache, check_settings, check_sources, drawn, mixture
from theworld.data.synthetic import SyntheticScenes
from theworld.data.world_block import WorldPosition
from theworld.types import Batch, PromptBatch


class OSDDataModule(LightningDataModule):
    """Training and validation as packed rows of one length, test as prompts.

    Args:
        base: Directory or Hub name of the base model (or `theworld-tiny`), for its tokenizer and image processor.
        train_path: OSD rows to train on: JSON array or JSON Lines.
        train_images: Folder of their images.
        train_index: Their index (`theworld data index`); by default rows are read through at every start.
        train_shards: Folder or URL of tar shards (`theworld data shard`), in place of path and images.
        train_features: Folder of cached features (`theworld data cache`), read for images until their tower trains.
        sources: Several sources to train on, in place of the five above.
        val_path: OSD rows for the validation loss.
        val_images: Folder of their images.
        val_index: Their index.
        val_features: Their cached features, read by validations before their tower has trained.
        test_path: Benchmark rows: one question each, with `qa_info`.
        test_images: Folder of their images.
        test_index: Their index.
        row_format: What the rows are, other than those of `sources`: `osd`, `llava` or `vsr`.
        synthetic: Synthetic scenes to generate and use in place of all paths.
        enable_world: False leaves the world tokens and the world encoder's input out.
        num_world_tokens: World placeholders of a sample, all world steps included.
        random_num_world_tokens: At most so many, of which a training sample draws one number in every epoch.
        world_image_size: Side of the world encoder's square input, in pixels.
        region_style: `box` outlines regions, `mask` tints them (needs `rle` in the rows).
        max_seq_length: Longest sample in tokens, placeholders included; trailing turns beyond it are dropped.
        token_budget: Tokens of a packed row, at least `max_seq_length`. The default holds three of OSD's samples.
        max_images_per_row: Most images of a packed row; None for any number.
        micro_batches_per_step: Packed rows of an optimizer step: devices x `accumulate_grad_batches`.
        shuffle_window: Shards that are shuffled together; None shuffles everything.
        cache_dir: Folder of the node cache of remote shards, on a local disk.
        cache_bytes: What it may take.
        num_workers: Worker processes of each loader; 0 reads in the main process.
        seed: Seed of the order and packing of the samples.
        test_batch_size: Most prompts of a test batch.
        skip_malformed: False stops at the first malformed row of a file without an index; True excludes such rows and
            counts them. (Where a row is not even closed, only `theworld data index` finds the next one.)
        blank_image: For controls: the tower, `vision` or `world`, that sees a plain colour (`TheWorldProcessor`).
        world_position: Where the world tokens stand: `first` or `after_image`; by default as the base was trained.
    """

    def __init__(
        self,
        *,
        base: str,
        train_path: str | None = None,
        train_images: str | None = None,
        train_index: str | None = None,
        train_shards: str | None = None,
        train_features: str | None = None,
        sources: list[SourceConfig] | None = None,
        val_path: str | None = None,
        val_images: str | None = None,
        val_index: str | None = None,
        val_features: str | None = None,
        test_path: str | None = None,
        test_images: str | None = None,
        test_index: str | None = None,
        row_format: Literal["osd", "llava", "vsr"] = "osd",
        synthetic: SyntheticScenes | None = None,
        enable_world: bool = True,
        num_world_tokens: int = 4096,
        random_num_world_tokens: list[int] | None = None,
        world_image_size: int = 512,
        region_style: RegionStyle = "box",
        max_seq_length: int = 6144,
        token_budget: int = 14336,
        max_images_per_row: int | None = None,
        micro_batches_per_step: int = 1,
        shuffle_window: int | None = None,
        cache_dir: str = CACHE_FOLDER,
        cache_bytes: int = CACHE_BYTES,
        num_workers: int = 0,
        seed: int = 0,
        test_batch_size: int = 32,
        skip_malformed: bool = False,
        blank_image: BlankImage | None = None,
        world_position: WorldPosition | None = None,
    ):
        super().__init__()
        of_format = partial(SourceConfig, row_format=row_format)
        self._sources = {
            "train": of_format(
                name="train",
                path=train_path,
                images=train_images,
                index=train_index,
                shards=train_shards,
                features=train_features,
            ),
            "val": of_format(name="val", path=val_path, images=val_images, index=val_index, features=val_features),
            "test": of_format(name="test", path=test_path, images=test_images, index=test_index),
        }
        self._mixed = tuple(sources or ())
        check_sources(self._sources, self._mixed, is_synthetic=synthetic is not None)
        check_settings(
            max_seq_length=max_seq_length,
            token_budget=token_budget,
            world_tokens=num_world_tokens if enable_world else 0,
            region_style=region_style,
            counts={"micro_batches_per_step": micro_batches_per_step, "test_batch_size": test_batch_size},
        )
        self.base = base
        self.synthetic = synthetic
        self.enable_world = enable_world
        self.num_world_tokens = num_world_tokens
        self.random_num_world_tokens = random_num_world_tokens
        self.world_image_size = world_image_size
        self.region_style: RegionStyle = region_style
        self.max_seq_length = max_seq_length
        self.token_budget = token_budget
        self.max_images_per_row = max_images_per_row
        self.micro_batches_per_step = micro_batches_per_step
        self.shuffle_window = shuffle_window
        self.cache_dir = cache_dir
        self.cache_bytes = cache_bytes
        self.num_workers = num_workers
        self.seed = seed
        self.test_batch_size = test_batch_size
        self.skip_malformed = skip_malformed
        self.blank_image = blank_image
        self.world_position: WorldPosition | None = world_position
        self._processor: TheWorldProcessor | None = None
        self._samples: dict[str, OSDSamples] = {}
        self._mixture: Mixture | None = None
        self._cached_steps: CachedSteps | None = None
        self._train_loader: PlanLoader | None = None
        self._train_state: LoaderState | None = None

    @property
    def processor(self) -> TheWorldProcessor:
        """Tokenizer and image processor of the base, loaded at first use."""
        if self._processor is None:
            self._processor = TheWorldProcessor.from_pretrained(
                self.base,
                num_world_tokens=self.num_world_tokens,
                world_image_size=self.world_image_size,
                enable_world=self.enable_world,
                blank_image=self.blank_image,
                world_position=self.world_position,
            )
        return self._processor

    def prepare_data(self) -> None:
        """Generate the synthetic scenes, once a node."""
        if self.synthetic is not None:
            self.synthetic.generate()

    def setup(self, stage: str) -> None:
        """Open the sources that `stage` needs, and print what was found."""
        if self.synthetic is not None:
            self._sources = drawn(self._sources, self.synthetic)
        for split in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",)):
            if self._sources[split].is_given and split not in self._samples:
                self._samples[split] = self._open(self._sources[split])
        if stage == "fit" and self._mixture is None:
            self._mixture = self._mix()

    @property
    def features(self) -> list[FeatureStore]:
        """The caches of all open sources that are trained on or validated."""
        opened = [source.samples for source in self._mixture.sources] if self._mixture is not None else []
        opened += [self._samples["val"]] if "val" in self._samples else []
        return [store for samples in opened for store in samples.features.values()]

    def use_features(self, steps: CachedSteps) -> None:
        """Read features in place of images in these steps, as the callback `CachedFeatures` finds them."""
        self._cached_steps = steps

    def train_dataloader(self) -> PlanLoader:
        """Planned packed rows; saves and restores its position with the checkpoint."""
        mine = self._rank()
        overfit = None
        if self.trainer is not None:
            accumulate = self.trainer.accumulate_grad_batches
            check_step_size(self.micro_batches_per_step, accumulate_grad_batches=accumulate, devices=mine["world_size"])
            overfit = steps_to_overfit(self.trainer.overfit_batches, accumulate_grad_batches=accumulate)
            if self.features and self._cached_steps is None:
                raise ValueError(
                    "found cached features and nothing that says in which steps they may be read; add "
                    "theworld.training.callbacks.cached_features.CachedFeatures to trainer.callbacks."
                )
        loader = PlanLoader(
            self._mixture or self._split("train"),  # which says what is missing
            budget=self.token_budget,
            micro_batches_per_step=self.micro_batches_per_step,
            seed=self.seed,
            **mine,
            num_workers=self.num_workers,
            max_images=self.max_images_per_row,
            window=self.shuffle_window,
            cached=self._cached_steps or LIVE,
            repeat_steps=overfit,
            random_num_world_tokens=self.random_num_world_tokens,
        )
        if self._train_state is not None:
            loader.load_state_dict(self._train_state)
        self._train_loader = loader
        _print(loader.summary())
        return loader

    def val_dataloader(self) -> FixedLoader[Batch] | list[FixedLoader[Batch]]:
        """Packed rows, the same at every pass; an empty list without validation rows."""
        if not self._sources["val"].is_given:
            return []
        rows = fixed_rows(
            self._split("val"), budget=self.token_budget, max_images=self.max_images_per_row, **self._rank()
        )

        def choose_features() -> None:
            if self._cached_steps is not None and self.trainer is not None:
                rows.cached = self._cached_steps.after(self.trainer.global_step)

        return FixedLoader(rows, num_workers=self.num_workers, before_pass=choose_features)

    def test_dataloader(self) -> FixedLoader[PromptBatch]:
        """Prompts and their questions."""
        prompts = Prompts(self._split("test"), batch_size=self.test_batch_size, **self._rank())
        return FixedLoader(prompts, num_workers=self.num_workers)

    def predict_dataloader(self) -> FixedLoader[PromptBatch]:
        """The prompts of the test rows."""
        return self.test_dataloader()

    def state_dict(self) -> dict[str, LoaderState]:
        """The training loader's position. Lightning restores a loader's own only inside an epoch (or with `max_steps`).

        After a checkpoint that was saved at the end of an epoch it would silently begin the data again.
        """
        return {"train": self._train_loader.state_dict()} if self._train_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, LoaderState]) -> None:
        """Keep the position for the next `train_dataloader`."""
        self._train_state = state_dict.get("train")

    def _open(self, source: SourceConfig) -> OSDSamples:
        opener = SourceOpener(
            processor=self.processor,
            max_seq_length=self.max_seq_length,
            region_style=self.region_style,
            skip_malformed=self.skip_malformed,
            cache_dir=self.cache_dir,
            cache_bytes=self.cache_bytes,
        )
        samples = opener.open(source)
        _print(samples.index.summary())
        return samples

    def _mix(self) -> Mixture | None:
        """What is trained on: `sources`, or the one source that the paths name."""
        configs = self._mixed or (self._sources["train"],)
        if not configs[0].is_given:
            return None
        samples = [self._open(config) for config in self._mixed] or [self._samples["train"]]
        check_cache(configs, samples, window=self.shuffle_window, bytes=self.cache_bytes)
        return mixture(configs, samples)

    def _split(self, split: str) -> OSDSamples:
        if split not in self._samples:
            raise ValueError(
                f"there are no {split} rows: found {split}_path={self._sources[split].path!r}; "
                f"give {split}_path and {split}_images, or `synthetic`, and call `setup` first."
            )
        return self._samples[split]

    def _rank(self) -> dict[str, int]:
        trainer = self.trainer
        return {"rank": trainer.global_rank if trainer else 0, "world_size": trainer.world_size if trainer else 1}


@rank_zero_only
def _print(line: str) -> None:
    print(line)
