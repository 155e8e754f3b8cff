"""Ask a language model behind any URL that speaks the OpenAI chat protocol.

Answers are JSON of a declared form or they are no answers. Each is kept in a cache under the hash
of prompt, model and form; failures never are. Retries are bounded, calls run side by side within
a limit, and results come in the order of the prompts. What was spent is counted in a `Usage`.
"""

from __future__ import annotations

from graphmert.llm.client import LLM
from graphmert.llm.forms import Answer, Estimate, Failure, LLMSettings, Prompt, Usage

__all__ = ["LLM", "Answer", "Estimate", "Failure", "LLMSettings", "Prompt", "Usage"]
