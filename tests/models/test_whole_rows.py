"""Compiled reductions read a row of Gemma's width once."""

from __future__ import annotations

import re

import pytest
import torch
from torch._inductor import config as inductor
from torch._inductor.choices import InductorChoices

from tests.models.triton_code import first_code, written
from tests.tiny import make_model
from theworld.models.execution import set_execution
from theworld.models.whole_rows import CACHE_TAG, hold_whole_rows

pytestmark = pytest.mark.usefixtures("untouched_compiler")

LOOP = "for r0_offset in"


def test_rows_of_gemmas_width_are_held(monkeypatch):
    hold_whole_rows()
    hold_whole_rows()
    assert LOOP not in written(monkeypatch, width=2560)
    assert torch.compiler.config.cache_key_tag == CACHE_TAG


def test_pytorch_itself_reads_them_twice(monkeypatch):
    """Control: what the test above looks for is there without it."""
    assert LOOP in written(monkeypatch, width=2560)


@pytest.mark.parametrize(("width", "held"), [(4096, True), (4097, False)])
def test_longer_rows_are_not(monkeypatch, width: int, held: bool):
    hold_whole_rows()
    assert (LOOP not in written(monkeypatch, width=width)) == held


def test_columns_are_not(monkeypatch):
    hold_whole_rows()
    summed = torch.compile(lambda columns: columns.sum(0), dynamic=False)
    assert LOOP in first_code(monkeypatch, lambda: summed(torch.zeros(2560, 2560)))


def test_another_compiler_is_named(monkeypatch):
    monkeypatch.setattr(InductorChoices, "should_use_persistent_reduction", staticmethod(lambda features: False))
    with pytest.raises(RuntimeError, match=rf"found PyTorch {re.escape(torch.__version__)}.*compile_layers=false"):
        hold_whole_rows()


def test_who_turns_it_off_in_pytorch_has_it_off(monkeypatch):
    hold_whole_rows()
    with inductor.patch({"triton.persistent_reductions": False}):
        assert LOOP in written(monkeypatch, width=2560)


def test_compiled_layers_have_it(monkeypatch):
    model = make_model()
    set_execution(model, compiled=False, recompute="none")
    assert LOOP in written(monkeypatch, width=2560)
    torch._dynamo.reset()
    set_execution(model, compiled=True, recompute="none")
    assert LOOP not in written(monkeypatch, width=2560)
