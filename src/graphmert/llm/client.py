"""The client: a cache, bounded retries, calls side by side, results in order."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic

import pydantic

from graphmert.errors import CapabilityError, JudgeError
from graphmert.llm.connection import (
    AgainError,
    Connection,
    read_content,
    read_envelope,
    without_fence,
)
from graphmert.llm.forms import Answer, AnswerT, Estimate, Failure, LLMSettings, Prompt, Usage
from graphmert.progress import Progress
from graphmert.shards import atomic_write_json

CACHE_VERSION = 1
CHARS_PER_TOKEN = 4

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Reply(Generic[AnswerT]):
    answer: AnswerT
    prompt_tokens: int
    completion_tokens: int


class LLM:
    """A model to ask, with its cache and its bill.

    Args:
        settings: server, model and limits.
        cache_dir: folder of kept answers; None keeps none.
        cache_only: never send a request; what is not in the cache is an error. Replays recorded
            answers.

    Raises:
        ConfigError: no model name, or a URL that is not http or https.
        CapabilityError: the key's environment variable is not set.
    """

    def __init__(
        self, settings: LLMSettings, *, cache_dir: Path | None = None, cache_only: bool = False
    ) -> None:
        self.settings = settings
        self.usage = Usage()
        self._cache_dir = cache_dir
        self._cache_only = cache_only
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._connection = Connection(settings, needs_key=not cache_only)

    def ask(self, prompt: Prompt, form: type[AnswerT]) -> AnswerT:
        """Return the answer to one prompt.

        Raises:
            JudgeError: no valid answer came, after all retries.
            CapabilityError: the server cannot be reached or refuses the key or the model.
        """
        answer = self.ask_all([prompt], form)[0]
        if isinstance(answer, Failure):
            raise JudgeError(
                "the language model gave no valid answer",
                where=self._connection.url,
                got=answer.reason,
                expected=f"JSON of the form {form.__name__}",
                fix="Try another model, or raise max_tokens or max_retries.",
            )
        return answer

    def ask_all(
        self, prompts: Sequence[Prompt], form: type[AnswerT], *, progress: Progress | None = None
    ) -> list[AnswerT | Failure]:
        """Return the answer to every prompt, in their order; equal prompts are asked once.

        A prompt that gets no valid answer yields a `Failure` and is asked again next time.

        Raises:
            CapabilityError: the server cannot be reached, or refuses the key or the model.
            JudgeError: more prompts failed than `max_failures` allows. Answers that came before
                are in the cache.
        """
        keys = [self.key_of(prompt, form) for prompt in prompts]
        first_of = {key: place for place, key in reversed(list(enumerate(keys)))}
        found: dict[str, AnswerT | Failure] = {}
        todo: list[str] = []
        for key in dict.fromkeys(keys):
            cached = self._read_cache(key, form)
            if cached is None:
                todo.append(key)
            else:
                found[key] = cached
        n_cached = sum(key in found for key in keys)
        with self._lock:
            self.usage.n_prompts += len(prompts)
            self.usage.n_cached += n_cached + (len(keys) - n_cached - len(todo))
        if todo and self._cache_only:
            raise CapabilityError(
                "an answer is not in the cache, and no call may be made",
                where=str(self._cache_dir),
                got=f"{len(todo)} prompts without one, first {prompts[first_of[todo[0]]]}",
                fix="Record them with a server first.",
            )
        jobs = [(key, prompts[first_of[key]]) for key in todo]
        found.update(self._run(jobs, form, n_done=n_cached, progress=progress))
        return [found[key] for key in keys]

    def estimate(self, prompts: Sequence[Prompt], form: type[Answer]) -> Estimate:
        """Return what asking would cost, without asking."""
        distinct = {self.key_of(prompt, form): prompt for prompt in prompts}
        todo = [p for key, p in distinct.items() if self._read_cache(key, form) is None]
        chars = sum(len(json.dumps(self._body(p, form, None), ensure_ascii=False)) for p in todo)
        prompt_tokens = math.ceil(chars / CHARS_PER_TOKEN)
        most = len(todo) * self.settings.max_tokens
        cost = prompt_tokens * self.settings.prompt_price + most * self.settings.completion_price
        return Estimate(
            n_prompts=len(prompts),
            n_cached=len(prompts) - len(todo),
            n_calls=len(todo),
            prompt_tokens=prompt_tokens,
            max_completion_tokens=most,
            max_cost=cost / 1e6,
        )

    def key_of(self, prompt: Prompt, form: type[Answer]) -> str:
        """Return the name of an answer in the cache: a hash of all that decides it."""
        text = json.dumps(
            {"version": CACHE_VERSION, **self._body(prompt, form, None)},
            sort_keys=True,
            ensure_ascii=False,
        )
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def cost(self) -> float:
        """Return the price of the tokens counted so far."""
        usage, settings = self.usage, self.settings
        prompt = usage.prompt_tokens * settings.prompt_price
        return (prompt + usage.completion_tokens * settings.completion_price) / 1e6

    # --- calls ------------------------------------------------------------------------------

    def _run(
        self,
        jobs: Sequence[tuple[str, Prompt]],
        form: type[AnswerT],
        *,
        n_done: int,
        progress: Progress | None,
    ) -> dict[str, AnswerT | Failure]:
        found: dict[str, AnswerT | Failure] = {}
        n_failed = 0
        self._stopped.clear()
        pool = ThreadPoolExecutor(self.settings.n_concurrent, thread_name_prefix="llm")
        try:
            futures: dict[Future[AnswerT | Failure], str] = {
                pool.submit(self._answer, key, prompt, form): key for key, prompt in jobs
            }
            for future in as_completed(futures):
                answer = future.result()
                found[futures[future]] = answer
                if isinstance(answer, Failure):
                    n_failed += 1
                    if n_failed > self.settings.max_failures:
                        raise _too_many_failures(n_failed, answer, self._connection.url)
                if progress is not None:
                    progress.update(n_done + len(found))
        finally:
            # Threads that wait before a retry give up at once; finished answers are kept.
            self._stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
        return found

    def _answer(self, key: str, prompt: Prompt, form: type[AnswerT]) -> AnswerT | Failure:
        """Ask until an answer is valid or the retries are used up, and keep a valid one."""
        problem: AgainError | None = None
        for attempt in range(self.settings.max_retries + 1):
            if problem is not None:
                pause = self.settings.backoff_s * 2 ** (attempt - 1)
                longest = self.settings.max_backoff_s
                if self._stopped.wait(min(max(pause, problem.wait_s), longest)):
                    break
            try:
                reply = self._attempt(prompt, form, problem)
            except AgainError as error:
                problem = error
                _LOG.info("try %d of a prompt: %s %s", attempt + 1, error.reason, error.detail)
                if error.is_final:
                    break
                continue
            self._write_cache(key, prompt, form, reply)
            with self._lock:
                self.usage.n_answered += 1
            return reply.answer
        if problem is None:
            return Failure("given up")
        if problem.is_unreachable and not self._stopped.is_set():
            raise CapabilityError(
                "the language model's server cannot be reached",
                where=self._connection.url,
                got=problem.detail,
                fix="Start it, or correct url.",
            )
        with self._lock:
            self.usage.n_failed += 1
            failures = self.usage.failures
            failures[problem.reason] = failures.get(problem.reason, 0) + 1
        return Failure(f"{problem.reason}: {problem.detail}" if problem.detail else problem.reason)

    def _attempt(
        self, prompt: Prompt, form: type[AnswerT], problem: AgainError | None
    ) -> _Reply[AnswerT]:
        body = self._body(prompt, form, problem)
        with self._lock:
            self.usage.n_calls += 1
            self.usage.n_retries += problem is not None
        data = self._connection.post(json.dumps(body, ensure_ascii=True).encode("ascii"))
        envelope = read_envelope(data)
        tokens = self._count_tokens(envelope)
        text = read_content(envelope)
        if self.settings.answer_format == "text":
            text = without_fence(text)
        try:
            return _Reply(form.model_validate_json(text, strict=True), *tokens)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            detail = f"{place}: {first['msg']}" if place else first["msg"]
            raise AgainError("not the JSON asked for", detail, answer=text) from error

    def _body(
        self, prompt: Prompt, form: type[Answer], problem: AgainError | None
    ) -> dict[str, Any]:
        schema = form.model_json_schema()
        task = prompt.system
        if self.settings.answer_format != "json_schema":
            told = json.dumps(schema, ensure_ascii=False, sort_keys=True)
            task = f"{task}\nAnswer with one JSON object of this JSON schema and nothing else:\n"
            task += told
        messages = [{"role": "system", "content": task}, {"role": "user", "content": prompt.user}]
        if problem is not None and problem.answer is not None:
            again = f"That was not valid ({problem.detail}). Answer again, JSON only."
            messages.append({"role": "assistant", "content": problem.answer})
            messages.append({"role": "user", "content": again})
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": messages,
            "temperature": self.settings.temperature,
            "max_tokens": self.settings.max_tokens,
        }
        if self.settings.answer_format == "json_schema":
            named = {"name": form.__name__, "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif self.settings.answer_format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def _count_tokens(self, envelope: dict[str, Any]) -> tuple[int, int]:
        usage = envelope.get("usage")
        values = [
            usage.get(name) if isinstance(usage, dict) else None
            for name in ("prompt_tokens", "completion_tokens")
        ]
        prompt, completion = (one if isinstance(one, int) and one > 0 else 0 for one in values)
        with self._lock:
            self.usage.prompt_tokens += prompt
            self.usage.completion_tokens += completion
            self.usage.n_calls_without_usage += all(one is None for one in values)
        return prompt, completion

    # --- cache ------------------------------------------------------------------------------

    def _cache_path(self, key: str) -> Path | None:
        return None if self._cache_dir is None else self._cache_dir / key[:2] / f"{key}.json"

    def _read_cache(self, key: str, form: type[AnswerT]) -> AnswerT | None:
        path = self._cache_path(key)
        if path is None or not path.is_file():
            return None
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            return form.model_validate_json(json.dumps(entry["answer"]), strict=True)
        except (ValueError, KeyError, TypeError) as error:
            # Asked again and written anew; the log says so.
            _LOG.warning("damaged answer in the cache, asked again: %s (%s)", path, error)
            return None

    def _write_cache(
        self, key: str, prompt: Prompt, form: type[Answer], reply: _Reply[AnswerT]
    ) -> None:
        path = self._cache_path(key)
        if path is not None:
            entry = {
                "model": self.settings.model,
                "form": form.__name__,
                "prompt": asdict(prompt),
                "answer": reply.answer.model_dump(mode="json"),
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
            }
            atomic_write_json(path, entry)


def _too_many_failures(n_failed: int, last: Failure, endpoint: str) -> JudgeError:
    return JudgeError(
        "too many prompts got no valid answer",
        where=endpoint,
        got=f"{n_failed} failures, the last: {last.reason}",
        fix="Answers so far are kept. Try another model, or raise max_failures.",
    )
