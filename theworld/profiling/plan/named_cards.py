"""Cards by the short names that people use, with the memory that is sold under them."""

from __future__ import annotations

from theworld.training.cards import Card, card_named

_CARDS = {
    "h200": ("NVIDIA H200", 141),
    "h100": ("NVIDIA H100 80GB HBM3", 80),
    "h100-pcie": ("NVIDIA H100 PCIe", 80),
    "h100-nvl": ("NVIDIA H100 NVL", 94),
    "a100": ("NVIDIA A100-SXM4-80GB", 80),
    "a100-40": ("NVIDIA A100-SXM4-40GB", 40),
    "l40s": ("NVIDIA L40S", 48),
    "rtx6000ada": ("NVIDIA RTX 6000 Ada Generation", 48),
    "a6000": ("NVIDIA RTX A6000", 48),
    "rtx4090": ("NVIDIA GeForce RTX 4090", 24),
    "rtx3090": ("NVIDIA GeForce RTX 3090", 24),
    "l4": ("NVIDIA L4", 24),
}
"""Short name → name by which `theworld.training.cards` knows it, and GB."""


def find_card(name: str) -> tuple[Card, float]:
    """Peaks of a card and its memory in GB (10⁹ bytes, the smaller reading of what is printed on the box).

    Raises:
        ValueError: An unknown name.
    """
    full, gigabytes = _CARDS.get(name.lower(), (name, 0))
    by_full_name = {one: size for one, size in _CARDS.values()}
    card = card_named(full)
    gigabytes = gigabytes or by_full_name.get(full, 0)
    if card is None or not gigabytes:
        raise ValueError(
            f"found card {name!r}, expected one of {', '.join(_CARDS)}; for another one give --memory_gb, and add its "
            "peaks to theworld/training/cards.py for times"
        )
    return card, float(gigabytes)
