"""That data and model mean the same placeholders: the one check that needs both."""

from __future__ import annotations

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
