"""The report as a page for people who know neither the code nor the project."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.ablations.compare import LEVEL, Comparison, Evidence
from theworld.evaluation.statistics import Interval


def page(comparison: Comparison, *, asks: Mapping[str, str], runs: str, made: str) -> str:
    """Markdown, beside `report.png`.

    Args:
        comparison: What was found.
        asks: Arm → what it is and asks, in a sentence or two.
        runs: Table of the runs.
        made: How to make it again, and with what it was made.
    """
    sections = [
        "# Ablations: what changes when one thing about the world tokens is changed?",
        *(f"> **Error: {alarm}. The numbers of these arms say nothing.**" for alarm in comparison.alarms),
        _question(comparison, asks),
        "## What was found",
        "\n".join(f"- {sentence(arm, comparison)}" for arm in comparison.differences),
        "![Accuracy of each arm, and its difference from the reference](report.png)",
        *_accuracies(comparison),
        *_differences(comparison),
        _limits(comparison),
        "## Runs",
        runs,
        made,
    ]
    return "\n\n".join(sections) + "\n"


def sentence(arm: str, comparison: Comparison) -> str:
    """What the numbers of an arm say, in words."""
    found = comparison.differences[arm]["overall"]
    by_seed = ", ".join(map(_points, found.by_seed))
    numbers = f"({_points(found.mean)} points; by seed {by_seed}; {_p(found.questions.p_holm)} for other questions"
    numbers += ")" if found.training is None else f", {_p(found.training.p_holm)} for other seeds)"
    word = "better" if found.mean > 0 else "worse"
    if found.verdict == "training":
        return f"`{arm}` is **{word}** than `{comparison.reference}`, and would be with other seeds {numbers}."
    once = ", on average, not with every seed" if min(found.by_seed) < 0 < max(found.by_seed) else ""
    if found.verdict == "models":
        return (
            f"`{arm}`: the models that were trained here are **{word}** than those of `{comparison.reference}`{once}; "
            f"whether other seeds would give the same **is open** {numbers}."
        )
    interval = found.questions.interval
    return (
        f"`{arm}`: **no difference** from `{comparison.reference}` **is shown** {numbers}; with other questions these "
        f"models could differ by {_points(interval.low)} to {_points(interval.high)} points."
    )


def _question(comparison: Comparison, asks: Mapping[str, str]) -> str:
    reference, seeds = comparison.reference, comparison.seeds
    rows = "\n".join(f"| `{arm}` | {asks[arm]} |" for arm in comparison.accuracies)
    return f"""The model is Gemma 3, which reads an image as tokens, with a second branch: the encoder of a world model
(Cosmos) looks at the same image, and a projector turns what it makes of it into further tokens, the *world
tokens*. Each **arm** below is the same training with one thing changed; `{reference}` is the training as it
is, and all others are compared with it.

| arm | what is changed, and what that asks |
|---|---|
{rows}

Every arm was trained {len(seeds)} times, with seeds {", ".join(map(str, seeds))}. A seed decides the
pictures that are trained on and asked about, their order, and the first weights of the projector. Within a
seed all arms saw the same samples in the same optimizer steps (compared before the first run), had as many
steps, and answered the same questions about pictures that none of them was trained on."""


def _accuracies(comparison: Comparison) -> list[str]:
    """A row an arm: mean over the seeds, lowest to highest."""
    rows = comparison.accuracies[comparison.reference]
    lines = [f"| arm | {' | '.join(rows)} |", "|---|" + "---|" * len(rows)]
    for arm, found in comparison.accuracies.items():
        cells = [
            f"{_percent(a.mean)} ({_percent(min(a.by_seed))} to {_percent(max(a.by_seed))})" for a in found.values()
        ]
        lines.append(f"| `{arm}` | {' | '.join(cells)} |")
    constants = " | ".join(_percent(row.best_constant) for row in rows.values())
    counts = " | ".join(f"{' + '.join(map(str, row.n))} = {sum(row.n)}" for row in rows.values())
    lines += [f"| best constant answers | {constants} |", f"| number of questions, by seed | {counts} |"]
    return ["## Right answers, % (mean over the seeds; lowest to highest seed)", "\n".join(lines), _KINDS]


def _differences(comparison: Comparison) -> list[str]:
    lines = [
        "| arm | questions | difference | by seed | other questions: 95 % | p | other seeds: 95 % | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, found in comparison.differences.items():
        for part, d in found.items():
            cells = [f"`{arm}`", part, _points(d.mean), ", ".join(map(_points, d.by_seed))]
            lines.append(f"| {' | '.join([*cells, *_evidence(d.questions), *_evidence(d.training)])} |")
    how = _HOW.format(arms=len(comparison.differences), level=LEVEL)
    return [f"## Difference from `{comparison.reference}`, in percentage points", "\n".join(lines), how]


def _limits(comparison: Comparison) -> str:
    return _LIMITS.format(seeds=len(comparison.seeds), reference=comparison.reference)


_KINDS = """*Qualitative* questions have a yes, a no or one of two regions as their answer (is the cup left of the
book?), *quantitative* ones a length or a direction, right within 25 % or one hour of the clock. *Best
constant answers*: the one answer to each form of question that is right most often, chosen by looking at
the truths. A model that does not reach them has learned nothing that shows in this kind of questions."""

_HOW = """- *Other questions*: had other pictures been asked about, with the very models that were trained. The interval
  is from a bootstrap of whole pictures (questions about one picture belong together), all seeds in one. Each
  question was answered by both arms, so what counts is where only one of them was right: p is how often a
  difference at least as large comes about when it is left to chance, picture by picture, which of the two arms
  that was.
- *Other seeds*: had the models been trained again. From the differences by seed alone (Student's t), so it is
  wide; but it is the only column that speaks of the arms rather than of these models.
- Each p is corrected for {arms} arms being tested at once (Holm), separately for each kind of questions. A
  difference is called one of these models if p for other questions is below {level}, and one of the arms if p
  for other seeds is so, too."""

_LIMITS = """## What this can and cannot say

- It says how *these* models compare at *this* budget. A tiny model that was trained for minutes on drawn scenes
  is no evidence about Gemma 3 4B on photographs.
- {seeds} seeds are few. Two trainings that differ in their seed alone give different models, and many questions
  can show that without its meaning anything; so a small p for other questions is not enough to say that an arm
  is better or worse.
- *No difference is shown* does not mean that there is none: the intervals say how large one could still be.
- Arms differ in more than what they are called after: with fewer world tokens the rest of the prompt stands
  elsewhere, and a step may take less time. Samples, steps and questions are equal, computing time is not.
- Rates and steps were chosen for `{reference}`. Another arm might do better with its own.
- Whether a finished model *uses* its world tokens is another question, which `theworld audit` asks of a single
  model."""


def _evidence(found: Evidence | None) -> list[str]:
    return (
        ["–", "–"]
        if found is None
        else [_interval(found.interval), _p(found.p_holm).removeprefix("p ").removeprefix("= ")]
    )


def _interval(interval: Interval) -> str:
    return f"{_points(interval.low)} to {_points(interval.high)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(difference: float) -> str:
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def _p(p_value: float) -> str:
    return f"p = {p_value:.2g}" if p_value >= 0.001 else "p < 0.001"
