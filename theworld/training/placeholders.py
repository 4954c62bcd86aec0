"""That data and model mean the same placeholders: the checks that need both."""

from __future__ import annotations

from theworld.data.datamodule import OSDDataModule
from theworld.data.processor import TheWorldProcessor
from theworld.models.configuration import TheWorldConfig


def check_placeholders(config: TheWorldConfig, processor: TheWorldProcessor | None) -> None:
    """The placeholders the data carries must be those the model fills in; without a processor there is no data of ours.

    Raises:
        ValueError: Their number or their token differs.
    """
    if processor is None:
        return
    found = (processor.num_world_tokens, processor.world_token_id if processor.enable_world else None)
    expected = (config.num_world_tokens, config.world_token_id) if config.enable_world else (0, None)
    if found != expected:
        raise ValueError(
            f"found (world tokens, world token id) = {found} in the data's processor, expected the model's "
            f"{expected}; give model and data the same base, enable_world, world_image_size and projection mode"
        )


def note_drawn(config: TheWorldConfig, drawn: list[int] | None, data: object) -> None:
    """Write into the model's config, and so into exports, which numbers of world tokens a frame it is trained with.

    Args:
        config: Changed.
        drawn: Numbers of which training draws; None: `world_tokens_per_frame` alone.
        data: Where the samples come from; other data than ours draws by itself.

    Raises:
        ValueError: The data draws other numbers.
    """
    expected = None if drawn is None else sorted(number * (1 + config.num_world_steps) for number in drawn)
    found = sorted(data.random_num_world_tokens or ()) or None if isinstance(data, OSDDataModule) else expected
    if found != expected:
        raise ValueError(
            f"found random_num_world_tokens={found} in the data, expected {expected}, which are the model's "
            f"random_world_tokens_per_frame={drawn} of all its latent frames; give both the same (theworld fit does)"
        )
    config.trained_world_tokens_per_frame = drawn
