"""A language model as second judge: any OpenAI-compatible endpoint, beside the rules, never in their place.

Every verdict is kept in a file, so that scoring again asks nothing and gives the same result. A call that fails, or an
answer that holds no verdict, is counted apart and has no part in accuracy or agreement: it is no verdict on the model.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from theworld.evaluation.answers import Score
from theworld.evaluation.predictions import Prediction

_INSTRUCTION = (
    "You grade answers to questions about the sizes and positions of regions in a picture. You get a question, the "
    "true answer and a model's answer. A yes/no or which-one answer is right if it says the same as the true answer. A "
    "length is right if it is within 25 percent of the true one after conversion to metres. A clock direction is right "
    "if it is within one hour of the true one. An answer that commits to nothing is wrong. Reply with one JSON object "
    'and nothing else: {"correct": true} or {"correct": false}.'
)
_VERDICT = re.compile(r'\{[^{}]*"correct"\s*:\s*(true|false)[^{}]*\}')


@dataclass(frozen=True)
class Agreement:
    """The judge beside the rules, over the answers that it gave a verdict on.

    Attributes:
        n: Answers.
        errors: Calls that failed or held no verdict.
        judge_correct: Answers that the judge calls right.
        rules_correct: Answers with a verdict that the rules call right.
        agreed: Answers on which both say the same.
    """

    n: int
    errors: int
    judge_correct: int
    rules_correct: int
    agreed: int

    @property
    def judged(self) -> int:
        """Answers with a verdict."""
        return self.n - self.errors

    @property
    def accuracy(self) -> float | None:
        """Share of the answers with a verdict that the judge calls right; None without any."""
        return self.judge_correct / self.judged if self.judged else None

    @property
    def agreement(self) -> float | None:
        """Share of the answers with a verdict on which both say the same; None without any."""
        return self.agreed / self.judged if self.judged else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa, agreement beyond what two independent graders of these rates have; None if that is all."""
        if not self.judged:
            return None
        judge, rules = self.judge_correct / self.judged, self.rules_correct / self.judged
        by_chance = judge * rules + (1 - judge) * (1 - rules)
        return None if by_chance == 1 else (self.agreed / self.judged - by_chance) / (1 - by_chance)


class Judge:
    """Asks an endpoint for verdicts, and keeps them.

    Args:
        url: Base of the endpoint, to which `/chat/completions` is added, e.g. `https://host/v1`.
        model: Name of the model that the endpoint runs.
        cache: JSON Lines file of verdicts; it is read first, and added to.
        key_variable: Environment variable with the key; the key itself is never written. Without one, none is sent.
        parallel: Calls under way at a time.
        timeout: Longest wait for one call, in seconds.
        attempts: Calls for one answer before it counts as an error.

    Raises:
        ValueError: The URL is not one of http, or the variable is named and not set.
    """

    def __init__(
        self,
        *,
        url: str,
        model: str,
        cache: str | Path,
        key_variable: str | None = None,
        parallel: int = 8,
        timeout: float = 60.0,
        attempts: int = 3,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(
                f"found judge URL {url!r}; expected http:// or https://, up to and without /chat/completions"
            )
        if key_variable is not None and not os.environ.get(key_variable):
            raise ValueError(
                f"found no environment variable {key_variable!r}; expected the judge's key in it; export it"
            )
        self.url = f"{url.rstrip('/')}/chat/completions"
        self.model = model
        self.cache = Path(cache)
        self._headers = {"Authorization": f"Bearer {os.environ[key_variable]}"} if key_variable else {}
        self._parallel = parallel
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._attempts = attempts
        self._kept = self._read_cache()

    def verdicts(
        self, predictions: Sequence[Prediction], *, on_verdict: Callable[[], None] = lambda: None
    ) -> list[bool | None]:
        """Whether each answer is right; None where the call failed or held no verdict (asked again the next time).

        Args:
            predictions: Answers to judge.
            on_verdict: Called after every answer, for a progress bar.
        """
        keys = [self._key(prediction) for prediction in predictions]
        missing = {key: p for key, p in zip(keys, predictions, strict=True) if key not in self._kept}
        for _ in range(len(keys) - len(missing)):
            on_verdict()
        if missing:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            asyncio.run(self._ask_all(missing, on_verdict))
        return [self._kept.get(key) for key in keys]

    def _read_cache(self) -> dict[str, bool]:
        kept: dict[str, bool] = {}
        if not self.cache.exists():
            return kept
        for number, line in enumerate(self.cache.read_text(encoding="utf-8").split("\n"), start=1):
            if not line:
                continue
            try:
                row = json.loads(line)
                key, correct = row["key"], row["correct"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.cache}, line {number}: found no verdict; expected an object with key and correct; delete "
                    "the line (an interrupted run may have left half of one) and the answer is judged again"
                ) from error
            if not isinstance(correct, bool) or not isinstance(key, str):
                raise ValueError(
                    f"{self.cache}, line {number}: found correct={correct!r}; expected true or false; delete the line"
                )
            kept[key] = correct
        return kept

    async def _ask_all(self, missing: dict[str, Prediction], on_verdict: Callable[[], None]) -> None:
        places = asyncio.Semaphore(self._parallel)
        with self.cache.open("a", encoding="utf-8", newline="\n") as file:
            async with aiohttp.ClientSession(headers=self._headers, timeout=self._timeout) as session:

                async def judge(key: str, prediction: Prediction) -> None:
                    async with places:
                        correct = await self._ask(session, prediction)
                    if correct is not None:
                        self._kept[key] = correct
                        row = {"key": key, "id": prediction.question.id, "correct": correct, "judge": self.model}
                        file.write(json.dumps(row, sort_keys=True) + "\n")
                        file.flush()
                    on_verdict()

                await asyncio.gather(*(judge(key, prediction) for key, prediction in missing.items()))

    async def _ask(self, session: aiohttp.ClientSession, prediction: Prediction) -> bool | None:
        """The verdict, or None after as many failures as are allowed."""
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(0.2 * 2**attempt)
            try:
                async with session.post(self.url, json=self._request(prediction)) as response:
                    body = await response.json() if response.status == 200 else None
            except (aiohttp.ClientError, TimeoutError, ValueError):
                continue
            if (correct := _verdict(body)) is not None:
                return correct
        return None

    def _request(self, prediction: Prediction) -> dict[str, object]:
        question = prediction.question
        asked = f"Question: {question.question}\nTrue answer: {question.answer}\nModel's answer: {prediction.text}"
        messages = [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": asked}]
        return {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": 32}

    def _key(self, prediction: Prediction) -> str:
        """What a verdict depends on: the judge, the instruction, and all that it is shown."""
        return hashlib.sha256(json.dumps(self._request(prediction), sort_keys=True).encode()).hexdigest()


def agreement(scores: Sequence[Score], verdicts: Sequence[bool | None]) -> Agreement:
    """The judge's verdicts beside the rules', one a score; None is an error of the judge."""
    pairs = [(s.correct, v) for s, v in zip(scores, verdicts, strict=True) if v is not None]
    return Agreement(
        n=len(scores),
        errors=len(scores) - len(pairs),
        judge_correct=sum(judge for _, judge in pairs),
        rules_correct=sum(rules for rules, _ in pairs),
        agreed=sum(rules == judge for rules, judge in pairs),
    )


def _verdict(body: object) -> bool | None:
    """The verdict in a reply of the endpoint."""
    try:
        content = body["choices"][0]["message"]["content"]  # type: ignore[index]
    except (KeyError, IndexError, TypeError):
        return None
    found = _VERDICT.findall(content) if isinstance(content, str) else []
    return found[-1] == "true" if found else None
