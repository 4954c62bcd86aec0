"""Small versions of the audit's controls: trained, audited and disconnected with the very commands of the README."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from experiments.audit_controls import run
from theworld.cli import main
from theworld.data.synthetic.pair_pictures import PairPictures

ROOT = Path(__file__).parents[2]
STEPS = {"world_only": 300, "image_only": 150}
SETTINGS = ["--max_new_tokens=8"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    PairPictures(output=str(folder), num_train=2000, num_val=10, num_test=400).generate()
    return folder


@pytest.fixture(scope="module")
def exported(pairs, tmp_path_factory):
    """A control, trained at first use."""
    made: dict[str, Path] = {}

    def train(control: str) -> Path:
        if control not in made:
            root = tmp_path_factory.mktemp(control)
            configs = [ROOT / "configs" / "tiny.yaml", run.HERE / "pairs.yaml", run.HERE / f"{control}.yaml"]
            places = [
                f"--data.{split}_{what}={pairs / split}{'.json' if what == 'path' else ''}"
                for split in ("train", "val", "test")
                for what in ("path", "images")
            ]
            main(
                [
                    *(
                        "fit",
                        *(f"--config={config}" for config in configs),
                        *places,
                        f"--trainer.default_root_dir={root}",
                    ),
                    *("--test_after_fit=false", f"--model.stages.projection.max_steps={STEPS[control]}"),
                ]
            )
            made[control] = root / "export" / "projection"
        return made[control]

    return train


@pytest.fixture
def audit(pairs, tmp_path):
    def audited(model: Path, blank: str) -> dict:
        places = [f"--rows={pairs / 'test.json'}", f"--images={pairs / 'test'}", f"--output={tmp_path / 'audit'}"]
        main(["audit", str(model), *places, *SETTINGS, f"--blank_image={blank}"])
        return json.loads((tmp_path / "audit" / "audit.json").read_text())

    return audited


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:blank_image=:UserWarning")
@pytest.mark.parametrize("control", ["world_only", "image_only"])
def test_reliance_is_found_where_it_is(control, exported, audit):
    verdict = audit(exported(control), run.BLANK[control])["verdict"]
    says = verdict["world"] == "relies", verdict["image"] == "relies"
    # 400 pictures may be too few to show that there is no reliance, but must not show one where there is none.
    assert says == tuple(said == "relies" for said in run.EXPECTED[control]), verdict["sentences"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:blank_image=:UserWarning")
@pytest.mark.parametrize(
    ("change", "message"),
    [(run.zero_projector, "projector's output is 0 everywhere"), (run.switch_off, "without a world branch")],
)
def test_a_disconnected_branch_is_an_error(change, message, exported, audit, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(exported("world_only"), broken)
    change(broken)
    with pytest.raises(SystemExit, match=message):
        audit(broken, "vision")
