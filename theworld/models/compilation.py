"""Compiling a model layer by layer: two graphs for the language model (global and sliding layers), one a tower.

A graph of the whole model would break at the placeholders and takes five times as long to compile. Shapes are
constant (a packed row is always full length), so nothing is compiled as dynamic.
"""

from __future__ import annotations

from torch import nn

from theworld.models.theworld import TheWorld


def compile_layers(model: TheWorld) -> None:
    """Compile every decoder layer, every layer of SigLIP and the world encoder, in place, at their next call.

    Parameters keep their names and may be frozen or moved afterwards; what changes the graph is compiled again.
    """
    for layer in layers(model):
        layer.compile(dynamic=False)


def layers(model: TheWorld) -> list[nn.Module]:
    """What is compiled, one graph each."""
    found = [*model.gemma.model.language_model.layers, *model.gemma.model.vision_tower.encoder.layers]
    return [*found, model.cosmos_encoder.vae] if model.cosmos_encoder is not None else found
