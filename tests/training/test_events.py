"""`events.jsonl`: whole lines, whoever writes them."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.training.ranks import CONTEXT
from theworld.training.events import read_events, record


def test_an_event_reads_back_as_it_was_recorded(tmp_path):
    before = datetime.now(UTC)
    record(
        tmp_path / "new", "stopped", step=3, reason="a\nb", where=tmp_path, losses=[1.0, float("nan"), float("-inf")]
    )
    record(tmp_path / "new", "started", rank=2)
    first, second = read_events(tmp_path / "new")
    assert before <= datetime.fromisoformat(first.pop("time")) <= datetime.now(UTC)
    assert first == {
        "event": "stopped",
        "step": 3,
        "rank": 0,
        "reason": "a\nb",
        "where": str(tmp_path),
        "losses": [1.0, "nan", "-inf"],
    }
    assert (second["event"], second["step"], second["rank"]) == ("started", None, 2)


def test_no_file_means_no_events(tmp_path):
    assert read_events(tmp_path) == []


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path):
    record(tmp_path, "first")
    path = tmp_path / "events.jsonl"
    with path.open("a") as file:
        file.write('{"event": "sec')
    record(tmp_path, "third")
    assert [event["event"] for event in read_events(tmp_path)] == ["first", "unreadable_line", "third"]
    assert read_events(tmp_path)[1]["line"] == 2


def test_what_json_cannot_hold_is_refused_and_leaves_no_half_line(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        record(tmp_path, "odd", value=object())
    assert read_events(tmp_path) == []


def _record_many(folder: Path, rank: int) -> None:
    for number in range(50):
        record(folder, "many", rank=rank, step=number, padding="x" * 500)


def test_lines_of_several_processes_do_not_mix(tmp_path):
    with ProcessPoolExecutor(3, mp_context=CONTEXT) as pool:
        list(pool.map(_record_many, [tmp_path] * 3, range(3)))
    events = read_events(tmp_path)  # a line is empty where one process saw half of another's
    assert {event["event"] for event in events} == {"many"}
    for rank in range(3):
        assert [event["step"] for event in events if event["rank"] == rank] == list(range(50))
