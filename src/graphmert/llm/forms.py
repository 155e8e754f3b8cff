"""What asking a language model takes and yields: settings, prompts, forms of answers, the bill."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

import pydantic
from pydantic import Field

from graphmert.config import Settings


class Answer(pydantic.BaseModel):
    """Base of the forms that answers take: frozen, every key declared."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


AnswerT = TypeVar("AnswerT", bound=Answer)


class LLMSettings(Settings):
    """Which model answers, and how much may be spent on asking it."""

    url: str = Field(
        default="",
        description="base URL of the server, such as http://127.0.0.1:8080/v1; empty: no model",
    )
    model: str = Field(default="", description="the model's name on that server")
    key_env: str = Field(
        default="",
        description="name of the environment variable that holds the key; empty: no key",
    )
    temperature: float = Field(default=0.0, ge=0, le=2, description="0 for repeatable answers")
    max_tokens: int = Field(default=512, ge=1, description="longest answer")
    answer_format: Literal["json_schema", "json_object", "text"] = Field(
        default="json_schema",
        description="how the server is told the form: by schema, as any JSON object, or in the "
        "prompt alone; the answer is checked in each case",
    )
    timeout_s: float = Field(default=120.0, gt=0, description="seconds for one answer")
    max_retries: int = Field(default=4, ge=0, le=20, description="further tries for one prompt")
    backoff_s: float = Field(default=1.0, ge=0, description="wait before the second try; doubles")
    max_backoff_s: float = Field(default=60.0, ge=0, description="longest wait between tries")
    max_failures: int = Field(
        default=20, ge=0, description="unanswered prompts of one batch before it is given up"
    )
    n_concurrent: int = Field(default=4, ge=1, le=256, description="calls at a time")
    prompt_price: float = Field(default=0.0, ge=0, description="price of a million prompt tokens")
    completion_price: float = Field(
        default=0.0, ge=0, description="price of a million answer tokens"
    )

    @property
    def is_set(self) -> bool:
        """Whether a model is configured at all."""
        return bool(self.url)


@dataclass(frozen=True)
class Prompt:
    """What is asked: the task, and the case."""

    system: str
    user: str


@dataclass(frozen=True)
class Failure:
    """A prompt that no valid answer came for, after all retries."""

    reason: str


@dataclass
class Usage:
    """What asking has cost. Prompts are answered, found in the cache, or failed.

    Attributes:
        n_prompts: prompts offered.
        n_answered: prompts answered by a call.
        n_cached: prompts answered without one, equal prompts of one batch included.
        n_failed: prompts that got no valid answer.
        n_calls: requests sent, retries included.
        n_retries: requests that were repeats.
        n_calls_without_usage: answers whose server did not count tokens.
        prompt_tokens, completion_tokens: as counted by the server, failed tries included.
    """

    n_prompts: int = 0
    n_answered: int = 0
    n_cached: int = 0
    n_failed: int = 0
    n_calls: int = 0
    n_retries: int = 0
    n_calls_without_usage: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "failures": dict(sorted(self.failures.items()))}


@dataclass(frozen=True)
class Estimate:
    """What a batch would cost if no call had to be repeated.

    Prompt tokens are estimated as characters / 4; `max_completion_tokens` is the limit set for
    answers, not what they will be.
    """

    n_prompts: int
    n_cached: int
    n_calls: int
    prompt_tokens: int
    max_completion_tokens: int
    max_cost: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)
