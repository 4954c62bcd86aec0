"""Reports side by side, from files alone: made by hand, so that every number is known."""

from __future__ import annotations

import copy
import json
import re
import struct
from html.parser import HTMLParser

import pytest

from theworld.cli import main
from theworld.profiling.reports.compare import compare
from theworld.profiling.reports.comparison import Compared
from theworld.profiling.reports.schema import SCHEMA

MIB = 2**20
FIRST = {
    "schema": SCHEMA,
    "name": "first",
    "machine": {"device": "Card", "torch": "2.13"},
    "run": {"stage": "projection", "trains": ["world_projector"], "active_steps": 2},
    "memory": {
        "start_allocated_bytes": 60 * MIB,
        "peak_allocated_bytes": 100 * MIB,
        "peak_reserved_bytes": 128 * MIB,
        "category_bytes": {"weights": 60 * MIB, "activations": 40 * MIB},
        "breakdown_sum_bytes": 100 * MIB,
        "breakdown": [
            {"category": "weights", "part": "language", "bytes": 60 * MIB},
            {"category": "activations", "part": "gemma.model.language_model.layers.0", "bytes": 30 * MIB},
            {"category": "activations", "part": "gemma.model.language_model.layers.1", "bytes": 10 * MIB},
        ],
        "timeline": {"seconds": [0.0, 1.0], "bytes": {"weights": [60 * MIB, 60 * MIB]}, "peak_seconds": 1.0},
    },
    "parameters": {"language": {"parameters": 1000, "trainable_parameters": 0, "bytes": 4000}},
    "time": {
        "step_seconds": 0.5,
        "step_seconds_each": [0.5, 0.5],
        "placed_step_seconds": 0.51,
        "places": [
            {"phase": "forward", "part": "gemma.model.language_model.layers.0", "seconds": 0.2, "host_seconds": 0.1},
            {"phase": "backward", "part": "gemma.model.language_model.layers.0", "seconds": 0.3, "host_seconds": 0.1},
        ],
        "places_sum_seconds": 0.5,
        "places_over_step": 1.0,
        "launches": 5000.0,
        "host_waits": 1.0,
        "idle_seconds": 0.01,
    },
    "operations": [
        {"name": "aten::mm", "is_kernel": False, "calls": 7.0, "cpu_seconds": 0.1, "cuda_seconds": 0.2},
        {"name": "gemm|fast", "is_kernel": True, "calls": 7.0, "cpu_seconds": 0.0, "cuda_seconds": 0.2},
    ],
    "throughput": {"tokens_per_second": 20000.0, "mfu_of_peak": 0.4},
    "loss": [8.9, 6.0],
}


def second() -> dict:
    """Twice the memory, half the time, other parameters, no CUDA."""
    report = copy.deepcopy(FIRST) | {"name": "<b>second</b> & more", "loss": [26.0, 17.0, 16.0]}
    report["memory"] |= {
        "peak_allocated_bytes": 200 * MIB,
        "category_bytes": {"weights": 60 * MIB, "logits": 140 * MIB},
    }
    del report["memory"]["peak_reserved_bytes"]
    report["time"] |= {"step_seconds": 0.25}
    report["throughput"] = {"tokens_per_second": 40000.0, "mfu_of_peak": 0.35}
    report["parameters"]["language"]["trainable_parameters"] = 1000
    report["run"]["stage"] = "language"
    return report


@pytest.fixture
def folders(tmp_path):
    places = [tmp_path / name for name in ("a", "b")]
    for place, report in zip(places, (FIRST, second()), strict=True):
        place.mkdir()
        (place / "report.json").write_text(json.dumps(report))
    return places


def cells(report_lines, label: str) -> tuple[str, ...]:
    line = next(line for line in report_lines if line.label == label)
    return line.value(0), line.value(1), line.difference(1), line.ratio(1)


def test_numbers_have_units_differences_and_ratios():
    sections = {section.title: section.lines for section in Compared([FIRST, second()], ["a", "b"]).sections()}
    summary = sections["Summary"]
    assert cells(summary, "peak of allocated memory") == ("100.00 MiB", "200.00 MiB", "+100.00 MiB", "2×")
    assert cells(summary, "peak of reserved memory") == ("128.00 MiB", "none", "", "")
    assert cells(summary, "step") == ("500 ms", "250 ms", "−250 ms", "0.5×")
    assert cells(summary, "tokens a second") == ("20,000", "40,000", "+20,000", "2×")
    mfu = "useful work of the card's peak (MFU)"
    assert cells(summary, mfu) == ("40.0%", "35.0%", "−5.0 points", "0.875×")
    memory = sections["Memory at the peak"]
    assert cells(memory, "logits, their copies and their gradients") == ("none", "140.00 MiB", "", "")
    parts = sections["Memory at the peak by part"]
    assert cells(parts, "activations: decoder layers")[0] == "40.00 MiB"  # of both layers
    trains = sections["Parameters"]
    assert cells(trains, "language, of them train") == ("0", "1,000", "+1,000", "")
    assert cells(sections["Time of a step"], "backward")[0] == "300 ms"
    assert cells(sections["Loss"], "of the last step") == ("6.0000", "16.0000", "+10.0000", "2.67×")
    assert cells(sections["Time of a step by kernel"], "gemm|fast")[0] == "200 ms"


def test_kernels_that_begin_alike_are_told_apart():
    start = "void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<c10::BFloat16, "
    kernels = [
        {"name": f"{start}{end}", "is_kernel": True, "calls": 1.0, "cpu_seconds": 0.0, "cuda_seconds": seconds}
        for end, seconds in (("at::native::AddFunctor>>", 0.2), ("at::native::MulFunctor>>", 0.1))
    ]
    report = FIRST | {"operations": kernels}
    lines = {section.title: section.lines for section in Compared([report, report], ["a", "b"]).sections()}
    shown = {line.label[-12:]: line.value(0) for line in lines["Time of a step by kernel"]}
    assert shown == {"AddFunctor>>": "200 ms", "MulFunctor>>": "100 ms"}


def test_names_are_no_formulas_and_numbers_of_many_reports_may_wrap(folders, tmp_path):
    (folders[1] / "report.json").write_text(json.dumps(second() | {"name": "$\\frac$"}))
    assert "class='many'" not in compare(folders, output=tmp_path / "two").read_text()
    assert "class='many'" in compare(folders * 4, output=tmp_path / "eight").read_text()


def test_settings_that_differ_come_first():
    settings = Compared([FIRST, second()], ["a", "b"]).settings()
    assert settings[0] == ("stage", ["projection", "language"])
    assert ("trains", ["world_projector", "world_projector"]) in settings


def test_reports_of_one_name_are_told_apart_by_their_places():
    assert Compared([FIRST, FIRST], ["a", "b"]).names == ["a", "b"]
    assert Compared([FIRST, second()], ["a", "b"]).names == ["first", "<b>second</b> & more"]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("count", [2, 4])
def test_the_page_is_one_file_and_shows_names_as_they_are(folders, tmp_path, count):
    html = compare([*folders, *folders][:count], output=tmp_path / "out")
    page = Page()
    page.feed(html.read_text())
    assert "script" not in page.tags
    assert "b" not in page.tags  # of the second report's name
    assert [source[:22] for source in page.sources] == ["data:image/png;base64,"]
    assert "http" not in html.read_text().replace('http-equiv="Content-Security-Policy"', "")
    name = "<b>second</b> & more" if count == 2 else str(folders[1])
    assert name in page.text
    assert "+100.00 MiB" in page.text
    assert "2×" in page.text
    image = (tmp_path / "out" / "compare.png").read_bytes()
    assert struct.unpack(">I", image[16:20])[0] == 1160  # fits a page of 1280
    rows = re.findall(r"^\|.*\|$", (tmp_path / "out" / "compare.md").read_text(), flags=re.MULTILINE)
    widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert widths == ({4, 6} if count == 2 else {6})
    numbers = json.loads((tmp_path / "out" / "compare.json").read_text())["sections"]["Summary"]
    assert numbers["step"] == [0.5, 0.25, 0.5, 0.25][:count]


def test_the_command_compares_and_refuses(folders, tmp_path, capsys):
    main(["profile", "compare", *map(str, folders), f"--output={tmp_path / 'out'}"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "compare.html")
    with pytest.raises(SystemExit, match="found 1 reports, expected two or more"):
        main(["profile", "compare", str(folders[0]), f"--output={tmp_path / 'out'}"])
    with pytest.raises(SystemExit, match=r"found no .*missing, expected the report of a profile"):
        main(["profile", "compare", str(folders[0]), str(tmp_path / "missing"), f"--output={tmp_path / 'out'}"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"found no JSON in .*report\.json"),
        (json.dumps(FIRST | {"schema": SCHEMA + 1}), rf"found schema {SCHEMA + 1} in .*, expected {SCHEMA}"),
        ("[]", r"found schema None in"),
        (json.dumps({k: v for k, v in FIRST.items() if k not in ("time", "loss")}), "found no loss, time, time"),
        (
            json.dumps(FIRST | {"memory": {"breakdown": []}}),
            r"found no memory\.breakdown_sum_bytes, memory\.category_bytes",
        ),
        (json.dumps(FIRST | {"memory": [], "time": None, "loss": 3}), "found memory, time, loss of another kind in"),
        (json.dumps(FIRST | {"parameters": None, "operations": {}}), "found parameters, operations of another kind in"),
    ],
)
def test_a_file_that_is_no_report_is_refused(folders, tmp_path, content, message):
    (folders[1] / "report.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        compare(folders, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
