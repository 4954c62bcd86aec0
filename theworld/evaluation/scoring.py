"""`theworld score`: a file of predictions → the table, `scores.jsonl` and `summary.json`.

Rows that say of which benchmark they are, as those of `theworld evaluate` do, are scored by its rules: BLINK, CV-Bench
and VSR by the choice that an answer makes; SpatialRGPT-Bench and every other file by what an answer states.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from theworld.evaluation.answers import Score
from theworld.evaluation.choice_scoring import choice_benchmark, choice_report, choice_score_row, choice_summary
from theworld.evaluation.compat import Compat
from theworld.evaluation.judge import Agreement, Judge, agreement
from theworld.evaluation.prediction_file import settings_beside
from theworld.evaluation.predictions import Prediction, read_predictions
from theworld.evaluation.report import Json, Report, score_row, write_rows, write_summary

WIDTH_OF_A_FILE = 120
"""Columns of the table when the standard output is no terminal."""


def score(
    predictions: str,
    *,
    output: str,
    blind: str | None = None,
    compat: Compat = "none",
    judge_url: str | None = None,
    judge_model: str | None = None,
    judge_key_variable: str | None = None,
    judge_cache: str | None = None,
) -> None:
    """Score the answers in a JSONL file: print the table, write `scores.jsonl` and `summary.json`.

    Args:
        predictions: Rows with `id`, `question`, `ground_truth`, `prediction`, `qa_type` and `qa_category`. With a key
            `model`, one file may hold the answers of several models; each gets a table. Rows of multiple-choice and
            true/false benchmarks are as `theworld evaluate` writes them.
        output: Folder for the two files; `scores.jsonl` has the order of the rows.
        blind: Predictions of the same questions without the image: a baseline beside each number.
        compat: Quirks of the official script: `none` (exact), `printed`, `score_json` or `carried`;
            `theworld.evaluation.compat` says what each does.
        judge_url: OpenAI-compatible endpoint of a language model that judges as well, such as `https://host/v1`.
        judge_model: Its name there.
        judge_key_variable: Environment variable that holds the endpoint's key.
        judge_cache: File of its verdicts, which are asked for once; by default `judge.jsonl` in `output`.
    """
    folder = Path(output)
    found = read_predictions(predictions)
    by_model: dict[str, list[Prediction]] = {}
    for prediction in found:
        by_model.setdefault(prediction.model, []).append(prediction)
    if (benchmark := choice_benchmark(found)) is not None:
        if blind is not None or compat != "none" or judge_url is not None or judge_model is not None:
            raise ValueError(
                f"found blind, compat or a judge with answers to {benchmark}, expected none of them: they are for free "
                "answers, by SpatialRGPT-Bench's rules; leave them out"
            )
        _score_choices(benchmark, found, by_model, folder, settings_beside(predictions))
        return
    blind_found = None if blind is None else read_predictions(blind)
    reports = {
        model: Report.from_predictions(own, blind=_blind_of(model, blind_found), compat=compat)
        for model, own in by_model.items()
    }
    scores: dict[tuple[str, str], Score] = {}
    for model, report in reports.items():
        scores |= {(model, p.question.id): one for p, one in zip(report.predictions, report.scores, strict=True)}
    ordered = [scores[p.model, p.question.id] for p in found]
    verdicts = None
    if judge_url is not None or judge_model is not None:
        judge = _judge(judge_url, judge_model, judge_key_variable, judge_cache or folder / "judge.jsonl")
        verdicts = _verdicts(judge, found)
    _write(folder, reports, found, ordered, verdicts)
    _show(reports, found, ordered, verdicts)
    _say(folder)


def _score_choices(
    benchmark: str,
    found: Sequence[Prediction],
    by_model: Mapping[str, Sequence[Prediction]],
    folder: Path,
    settings_sha256: str | None,
) -> None:
    reports = {model: choice_report(benchmark, own) for model, own in by_model.items()}
    outcomes = {
        (model, answer.id): outcome
        for model, report in reports.items()
        for answer, outcome in zip(report.answers, report.outcomes, strict=True)
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "scores.jsonl", [choice_score_row(p, outcomes[p.model, p.question.id]) for p in found])
    settings: dict[str, Json] = {} if settings_sha256 is None else {"settings_sha256": settings_sha256}
    _write_summaries(folder, {model: choice_summary(report) | settings for model, report in reports.items()})
    for model, report in reports.items():
        _console().print(report.table(title=f"{benchmark}: {model}" if model else benchmark))
    _say(folder)


def _blind_of(model: str, blind: Sequence[Prediction] | None) -> list[Prediction] | None:
    """The blind answers of a model, or those of no named model, which serve every one."""
    if blind is None:
        return None
    own = [prediction for prediction in blind if prediction.model == model]
    return own or [prediction for prediction in blind if not prediction.model]


def _judge(url: str | None, model: str | None, key_variable: str | None, cache: str | Path) -> Judge:
    if url is None or model is None:
        raise ValueError("found one of judge_url and judge_model; expected both, or neither; add the other")
    return Judge(url=url, model=model, cache=cache, key_variable=key_variable)


def _verdicts(judge: Judge, found: Sequence[Prediction]) -> list[bool | None]:
    with Progress(transient=True) as progress:
        task = progress.add_task(f"judged by {judge.model}", total=len(found))
        return judge.verdicts(found, on_verdict=lambda: progress.advance(task))


def _write(
    folder: Path,
    reports: dict[str, Report],
    found: Sequence[Prediction],
    scores: Sequence[Score],
    verdicts: Sequence[bool | None] | None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    constant = {
        (p.model, p.question.id): right
        for report in reports.values()
        for p, right in zip(report.predictions, report.constant_right, strict=True)
    }
    rows = []
    for number, (prediction, one) in enumerate(zip(found, scores, strict=True)):
        row = score_row(prediction, one)
        row["best_constant_correct"] = constant[prediction.model, prediction.question.id]
        if verdicts is not None:
            row["judge_correct"] = verdicts[number]
        rows.append(row)
    write_rows(folder / "scores.jsonl", rows)
    summaries = {model: report.summary() | _judged(model, found, scores, verdicts) for model, report in reports.items()}
    _write_summaries(folder, summaries)


def _write_summaries(folder: Path, summaries: Mapping[str, dict[str, Json]]) -> None:
    several: dict[str, Json] = {"models": dict(summaries)}
    write_summary(folder / "summary.json", several if len(summaries) > 1 else next(iter(summaries.values())))


def _judged(
    model: str, found: Sequence[Prediction], scores: Sequence[Score], verdicts: Sequence[bool | None] | None
) -> dict[str, Json]:
    """What the summary says of the judge."""
    if verdicts is None:
        return {}
    of = _agreement(model, found, scores, verdicts)
    return {
        "judge": {
            "n": of.judged,
            "errors": of.errors,
            "accuracy": of.accuracy,
            "agreement": of.agreement,
            "kappa": of.kappa,
        }
    }


def _agreement(
    model: str, found: Sequence[Prediction], scores: Sequence[Score], verdicts: Sequence[bool | None]
) -> Agreement:
    own = [number for number, prediction in enumerate(found) if prediction.model == model]
    return agreement([scores[number] for number in own], [verdicts[number] for number in own])


def _show(
    reports: dict[str, Report],
    found: Sequence[Prediction],
    scores: Sequence[Score],
    verdicts: Sequence[bool | None] | None,
) -> None:
    console = _console()
    for model, report in reports.items():
        console.print(report.table(title=model or "Answers"))
        if verdicts is not None:
            of = _agreement(model, found, scores, verdicts)
            said = "no verdict" if of.accuracy is None else f"{100 * of.accuracy:.1f} % right"
            agreed = "" if of.agreement is None else f", agrees with the rules on {100 * of.agreement:.1f} %"
            kappa = "" if of.kappa is None else f" (Cohen's kappa {of.kappa:.2f})"
            console.print(f"judge: {said} of {of.judged} answers{agreed}{kappa}; {of.errors} calls without a verdict")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)


def _say(folder: Path) -> None:
    print(f"Wrote {folder / 'scores.jsonl'} and {folder / 'summary.json'}")
