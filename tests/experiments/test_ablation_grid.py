"""The ablation grid: what its files say, which runs follow, and that its arms see the same data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from experiments.ablations.grid import Grid, decisive, leaves
from experiments.ablations.order import Order, check_same_order

HERE = Path(__file__).parents[2] / "experiments" / "ablations"
GRIDS = sorted((HERE / "grids").glob("*.yaml"))
ARMS = sorted((HERE / "arms").glob("*.yaml"))


@pytest.fixture
def grid(tmp_path):
    """A grid of two arms on the tiny budget."""
    (tmp_path / "frozen.yaml").write_text(
        "# Asks.\nmodel:\n  stages:\n    language:\n      learning_rates: {language: null}\n"
    )
    file = tmp_path / "grid.yaml"
    values = {"budget": [str(HERE / "budget.yaml")], "reference": "as_it_is", "seeds": [3, 1], "side_by_side": 2}
    file.write_text(yaml.safe_dump(values | {"arms": {"as_it_is": None, "frozen": "frozen.yaml"}}))
    return file


def test_a_run_is_budget_seed_and_difference(grid):
    runs = Grid.read(grid, ["--trainer.log_every_n_steps=5"]).runs
    assert [run.name for run in runs] == ["as_it_is-seed3", "frozen-seed3", "as_it_is-seed1", "frozen-seed1"]
    plain, frozen = (decisive(run.config) for run in runs[:2])
    assert plain.keys() == frozen.keys()
    assert {name: (plain[name], frozen[name]) for name in plain if plain[name] != frozen[name]} == {
        "model.stages.language.learning_rates.language": ("0.001", "null")
    }
    assert plain["model.stages.vision.max_steps"] == "20"  # of a stage that the arm does not name
    assert plain["trainer.log_every_n_steps"] == "5"
    assert plain["seed_everything"] == plain["data.seed"] == plain["data.synthetic.seed"] == "3"
    assert "trainer.default_root_dir" not in plain


def test_a_setting_that_fit_does_not_know_is_refused(grid, tmp_path):
    (tmp_path / "frozen.yaml").write_text("model: {frozen: true}\n")
    with pytest.raises(ValueError, match="frozen-seed3: theworld fit refuses it: .*frozen"):
        _ = Grid.read(grid).runs[1].config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "other"}, "reference 'other', expected at least two arms, the reference among them"),
        ({"arms": {"as_it_is": None}}, "expected at least two arms"),
        ({"arms": {"as_it_is": None, "gone": "gone.yaml"}}, "found no file .*gone.yaml"),
        ({"seeds": [1, 1]}, r"found seeds \[1, 1\], expected different whole numbers"),
        ({"seeds": []}, "give at least one"),
        ({"side_by_side": 0}, "expected at least 1 run at a time"),
        ({"extra": 1}, "expected the keys"),
    ],
)
def test_a_bad_grid_is_refused(grid, change, message):
    grid.write_text(yaml.safe_dump(yaml.safe_load(grid.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        Grid.read(grid)


def test_leaves_keep_empty_and_nested_values():
    assert dict(leaves({"a": {"b": None, "c": {}}, "d": [1]})) == {"a.b": None, "a.c": {}, "d": [1]}


ORDER = Order(stages={"language": 2}, steps=("a:3 b:4", "c:5 d:6"), questions="q")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": {"language": 3}}, r"other: found stages of \{'language': 3\}"),
        (
            {"steps": ("a:3 b:4", "d:6 c:5")},
            r"other: found the samples d:6 c:5 in step 1, expected c:5 d:6 as in first",
        ),
        ({"steps": ("a:3 b:3", "c:5 d:6")}, "found the samples a:3 b:3 in step 0"),
        ({"questions": "r"}, "other: found other test questions than first has"),
    ],
)
def test_another_order_is_refused(change, message):
    check_same_order("first", {"first": ORDER, "other": replace(ORDER)})
    other = replace(ORDER, **change)
    assert other.sha256 != ORDER.sha256
    with pytest.raises(ValueError, match=message):
        check_same_order("first", {"first": ORDER, "other": other})


@pytest.mark.slow
@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_a_shipped_grid_parses_and_each_arm_reaches_the_settings(path):
    grid = Grid.read(path)
    configs = {run.arm: decisive(run.config) for run in grid.runs if run.seed == grid.seeds[0]}
    reference = configs.pop(grid.reference)
    assert len(configs) >= 3
    for arm, config in configs.items():
        changed = {name for name in reference if config[name] != reference[name]}
        file = grid.arms[arm]
        assert file is not None
        assert {name for name, _ in leaves(yaml.safe_load(file.read_text()))} == changed, f"{arm} changes {changed}"
    header = " ".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert f"python -m experiments.ablations.run --grid experiments/ablations/grids/{path.name}" in header


@pytest.mark.parametrize("path", ARMS, ids=lambda path: path.stem)
def test_an_arm_says_what_it_asks(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith("?")
