"""The judge against a real HTTP server on this machine that answers as an OpenAI-compatible endpoint does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from theworld.evaluation.answers import score_answer
from theworld.evaluation.judge import Agreement, Judge, agreement
from theworld.evaluation.predictions import Prediction
from theworld.evaluation_cli import evaluation_command

if TYPE_CHECKING:
    from conftest import Ask


class Endpoint(ThreadingHTTPServer):
    """Says that "yes" answers are right; fails for those with "fail" in them, and prattles for those with "odd"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, object]] = []
        self.keys: list[str | None] = []
        self.failures_left = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        self.server.keys.append(self.headers["Authorization"])
        answer = request["messages"][-1]["content"].rpartition("Model's answer: ")[2]
        fails = "fail" in answer or self.server.failures_left > 0
        self.server.failures_left -= 1
        content = "I like it." if "odd" in answer else f'Verdict: {{"correct": {json.dumps("yes" in answer.lower())}}}'
        body = b"busy" if fails else json.dumps({"choices": [{"message": {"content": content}}]}).encode()
        self.send_response(503 if fails else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def predictions(ask: Ask) -> list[Prediction]:
    texts = ["Yes.", "No.", "Yes, surely.", "fail", "odd", "It is shorter."]
    return [
        Prediction(ask("tall_predicate", "Is Region [0] taller than Region [1]?", "Yes.", id=f"q{number}"), text)
        for number, text in enumerate(texts)
    ]


def test_verdicts_and_agreement(endpoint: Endpoint, predictions: list[Prediction], tmp_path: Path) -> None:
    judge = Judge(url=endpoint.url, model="grader", cache=tmp_path / "judge.jsonl", attempts=1)
    seen: list[int] = []
    verdicts = judge.verdicts(predictions, on_verdict=lambda: seen.append(1))
    assert verdicts == [True, False, True, None, None, False]
    assert len(seen) == len(predictions)
    assert all(request["model"] == "grader" and request["temperature"] == 0 for request in endpoint.requests)
    found = agreement([score_answer(p.question, p.text) for p in predictions], verdicts)
    assert found == Agreement(n=6, errors=2, judge_correct=2, rules_correct=2, agreed=4)
    assert (found.accuracy, found.agreement, found.kappa) == (0.5, 1.0, 1.0)


def test_kappa_is_agreement_beyond_chance() -> None:
    # Rates ½ and ¼ agree by chance on ½·¼ + ½·¾ = ½; 6 of 8 is half the way from there to 1.
    assert Agreement(n=8, errors=0, judge_correct=4, rules_correct=2, agreed=6).kappa == 0.5
    assert Agreement(n=8, errors=0, judge_correct=8, rules_correct=8, agreed=8).kappa is None
    nothing = Agreement(n=2, errors=2, judge_correct=0, rules_correct=0, agreed=0)
    assert (nothing.accuracy, nothing.agreement, nothing.kappa) == (None, None, None)


def test_verdicts_are_kept_and_errors_asked_again(
    endpoint: Endpoint, predictions: list[Prediction], tmp_path: Path
) -> None:
    cache = tmp_path / "judge.jsonl"
    first = Judge(url=endpoint.url, model="grader", cache=cache, attempts=1).verdicts(predictions)
    asked = len(endpoint.requests)
    assert Judge(url=endpoint.url, model="grader", cache=cache, attempts=1).verdicts(predictions) == first
    assert len(endpoint.requests) - asked == 2, "only the two without a verdict"
    endpoint.requests.clear()
    Judge(url=endpoint.url, model="other", cache=cache, attempts=1).verdicts(predictions[:1])
    assert len(endpoint.requests) == 1, "another judge has another verdict"


def test_a_failing_call_is_tried_again(endpoint: Endpoint, predictions: list[Prediction], tmp_path: Path) -> None:
    endpoint.failures_left = 1
    assert Judge(url=endpoint.url, model="grader", cache=tmp_path / "j", attempts=2).verdicts(predictions[:1]) == [True]
    assert len(endpoint.requests) == 2


def test_the_key_is_sent_and_never_written(
    endpoint: Endpoint, predictions: list[Prediction], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "judge.jsonl"
    with pytest.raises(ValueError, match="found no environment variable 'GRADER_KEY'"):
        Judge(url=endpoint.url, model="grader", cache=cache, key_variable="GRADER_KEY")
    monkeypatch.setenv("GRADER_KEY", "secret-words")
    Judge(url=endpoint.url, model="grader", cache=cache, key_variable="GRADER_KEY").verdicts(predictions[:1])
    assert endpoint.keys == ["Bearer secret-words"]
    assert "secret-words" not in cache.read_text()


def test_bad_settings_and_a_torn_cache_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found judge URL 'host/v1'; expected http"):
        Judge(url="host/v1", model="grader", cache=tmp_path / "j")
    (tmp_path / "torn").write_text('{"key": "a", "correct": true}\n{"key": "b", "cor')
    with pytest.raises(ValueError, match="torn, line 2: found no verdict; .* delete the line"):
        Judge(url="http://host/v1", model="grader", cache=tmp_path / "torn")
    (tmp_path / "odd").write_text('{"key": "a", "correct": "true"}\n')
    with pytest.raises(ValueError, match="odd, line 1: found correct='true'; expected true or false"):
        Judge(url="http://host/v1", model="grader", cache=tmp_path / "odd")


def test_the_command_reports_the_judge_beside_the_rules(
    endpoint: Endpoint, predictions: list[Prediction], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(p.row()) + "\n" for p in [*predictions[:3], predictions[4]]))
    words = ["score", str(path), "--judge_url", endpoint.url, "--judge_model", "grader", "--output"]
    evaluation_command([*words, str(tmp_path / "out")])
    asked = len(endpoint.requests)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["judge"] == {"n": 3, "errors": 1, "accuracy": 2 / 3, "agreement": 1.0, "kappa": 1.0}
    rows = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    assert [row["judge_correct"] for row in rows] == [True, False, True, None]
    assert "agrees with the rules on 100.0 %" in capsys.readouterr().out
    before = (tmp_path / "out" / "summary.json").read_bytes()
    evaluation_command([*words, str(tmp_path / "out")])
    assert (tmp_path / "out" / "summary.json").read_bytes() == before
    assert len(endpoint.requests) > asked, "what had no verdict is asked again"
