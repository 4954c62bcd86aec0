"""Numbers as a reader sees them."""

from __future__ import annotations

import pytest

from theworld.profiling.reports.units import duration, number, share, short, size, summed


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (401, "401 B"), (1536, "1.50 KiB"), (-(2**21), "-2.00 MiB"), (90.2 * 2**30, "90.20 GiB")],
)
def test_sizes(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0 µs"), (3e-6, "3 µs"), (0.0123, "12.3 ms"), (5.22, "5.22 s"), (4321.0, "4,321 s")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_shares_and_counts():
    assert (share(1, 8), share(1, 0)) == ("12.5%", "none")
    assert (number(22944.0), number(0.5)) == ("22,944", "0.5")


def test_layers_of_a_stack_have_one_name():
    assert short("gemma.model.language_model.layers.33") == "decoder layers"
    assert short("gemma.model.vision_tower.encoder.layers.1") == "SigLIP layers"
    assert short("gemma.model.multi_modal_projector.mm_soft_emb_norm") == "image projector"
    assert short("cosmos_encoder.projector") == "world projector"
    assert short("head and loss") == "head and loss"
    assert summed([("a", 1), ("b", 5), ("a", 2)]) == {"b": 5, "a": 3}
