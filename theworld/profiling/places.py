"""Where a step is: a module of the model in its forward or backward pass, or a part of the loop around it.

The step is cut into stretches by moments, `notice(place)`: from here on, whatever is computed or allocated belongs to
`place`. Memory and time are both attributed this way (`memory/`, `timing/segments.py`, `timing/trace.py`).

Only hooks on modules are used, and only on those that are called as a whole: a layer's hooks run around its compiled
code (`theworld.models.execution` compiles what is behind `layer.forward`), so nothing is compiled again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from theworld.models.theworld import TheWorld

HEAD = "head and loss"
"""Part behind the decoder's last norm, up to its gradient: logits and all that is made of them."""

LM_HEAD = "gemma.lm_head"
"""The module that makes logits of all rows; training never calls it, a baseline may."""

GLUE = "model"
"""What is in the model's own forward and in none of its modules: masks, rotary embeddings, fusion."""

IMAGE_PROJECTOR = "gemma.model.multi_modal_projector"


@dataclass(frozen=True)
class Place:
    """A stretch of a step.

    Attributes:
        phase: `forward`, `backward`, `optimizer`, `data`, or `loop` for what is around them.
        part: Name of a module, or of what is done.
    """

    phase: str
    part: str

    def __str__(self) -> str:
        return f"{self.phase}: {self.part}"


LOOP = Place("loop", "between hooks")

_GLUE, _BACKWARD_GLUE, _HEAD = Place("forward", GLUE), Place("backward", GLUE), Place("forward", HEAD)


class Places:
    """Follows a model through its steps while it is attached.

    Args:
        model: Whose modules are followed; not changed, and not touched before `attach`.
        notice: Called at each moment with the place that begins.
    """

    def __init__(self, model: TheWorld, notice: Callable[[Place], None]) -> None:
        self._model, self._notice = model, notice
        self._stack: list[Place] = []
        self._handles: list[RemovableHandle] = []

    @property
    def is_attached(self) -> bool:
        """Whether places are noticed."""
        return bool(self._handles)

    def attach(self) -> None:
        """Follow the model, between two steps; nothing is noticed before `begin`."""
        self._handles.append(self._model.register_forward_pre_hook(lambda *_: self.enter(_GLUE)))
        self._handles.append(self._model.register_forward_hook(self._end_model))
        for name, module in followed(self._model):
            self._follow(name, module)

    def begin(self) -> None:
        """A step begins, between hooks of the loop."""
        self._stack = [LOOP]
        self._notice(LOOP)

    def detach(self) -> None:
        """End: the model has no hook of ours left."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def enter(self, place: Place) -> None:
        """A place inside the current one."""
        self._stack.append(place)
        self._notice(place)

    def leave(self) -> None:
        """Back to the place around the current one."""
        self._stack.pop()
        self._notice(self._stack[-1])

    @contextmanager
    def within(self, place: Place) -> Iterator[None]:
        """A place for the time of a `with` block; nothing while no step is followed."""
        if not self.is_attached:
            yield
            return
        self.enter(place)
        try:
            yield
        finally:
            self.leave()

    def move(self, place: Place) -> None:
        """On to a place beside the current one."""
        self._stack[-1] = place
        self._notice(place)

    def _follow(self, name: str, module: nn.Module) -> None:
        forward, backward = Place("forward", name), Place("backward", name)
        behind = Place("forward", _BEHIND.get(name, GLUE))

        def begins(_: Tensor) -> None:
            self.move(backward)

        def ends(_: Tensor) -> None:
            # The gradient of the input is made. If it is the output of the module before, that one has begun.
            if self._stack[-1] is backward:
                self.move(_BACKWARD_GLUE)

        def enter(module: nn.Module, inputs: tuple[object, ...]) -> None:
            _hook(inputs, ends)
            self.enter(forward)

        def leave(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            _hook(output if isinstance(output, tuple) else (output,), begins)
            self._stack.pop()
            if self._stack[-1].phase == "forward":  # a tower may be called outside of a step
                self._stack[-1] = behind
            self._notice(self._stack[-1])

        self._handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    def _end_model(self, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        self._stack.pop()
        if self._stack[-1].phase == "forward":  # what is made of the model's output is the loss
            self._stack[-1] = _HEAD
        self._notice(self._stack[-1])


def _hook(values: tuple[object, ...], hook: Callable[[Tensor], None]) -> None:
    for value in values:
        if isinstance(value, Tensor) and value.requires_grad:
            value.register_hook(hook)


_NORM = "gemma.model.language_model.norm"
_BEHIND = {_NORM: HEAD, LM_HEAD: HEAD, f"{IMAGE_PROJECTOR}.mm_soft_emb_norm": IMAGE_PROJECTOR}
"""Modules behind which the model's own forward goes on with something that has a name."""


def followed(model: TheWorld) -> Iterator[tuple[str, nn.Module]]:
    """Modules by name, none of which is part of another; together they are the whole model but for `GLUE`."""
    if model.cosmos_encoder is not None:
        yield "cosmos_encoder.vae", model.cosmos_encoder.vae
        yield "cosmos_encoder.projector", model.cosmos_encoder.projector
    tower, decoder = model.gemma.model.vision_tower, model.gemma.model.language_model
    yield "gemma.model.vision_tower.embeddings", tower.embeddings
    for number, layer in enumerate(tower.encoder.layers):
        yield f"gemma.model.vision_tower.encoder.layers.{number}", layer
    yield f"{IMAGE_PROJECTOR}.mm_soft_emb_norm", model.gemma.model.multi_modal_projector.mm_soft_emb_norm
    yield "gemma.model.language_model.embed_tokens", decoder.embed_tokens
    for number, layer in enumerate(decoder.layers):
        yield f"gemma.model.language_model.layers.{number}", layer
    yield _NORM, decoder.norm
    yield LM_HEAD, model.gemma.lm_head
