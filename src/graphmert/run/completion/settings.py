"""The settings of a run that completes a graph."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from graphmert.config import Settings
from graphmert.walks import WalkSettings


class Published(Settings):
    """A published result on the same split, to stand beside ours."""

    name: str = Field(description="system")
    mrr: float = Field(ge=0, le=1, description="filtered mean reciprocal rank")
    hits_1: float | None = Field(default=None, ge=0, le=1, description="Hits@1")
    hits_3: float | None = Field(default=None, ge=0, le=1, description="Hits@3")
    hits_10: float | None = Field(default=None, ge=0, le=1, description="Hits@10")
    compute: str = Field(default="not stated", description="what it was trained on")
    source: str = Field(description="where the numbers are from")


class CompleteSettings(Settings):
    """Rank both ends of given held-out triples, in place of asking documents for new ones."""

    valid: str = Field(default="", description="KG source of the triples held out for choices")
    test: str = Field(
        default="",
        description="KG source of the triples held out for the scores; data.kg has the others. "
        "Empty: the run asks documents instead",
    )
    entities: str = Field(
        default="",
        description="source that describes the entities (names, types, definitions) where the "
        "triples' own does not; its triples are not read",
    )
    checksums: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of files of triples, by file name"
    )
    mirrors: Literal["drop", "keep"] = Field(
        default="drop",
        description="what becomes of training triples that say a held-out one from its other end: "
        "left out of training, or kept as the source gives them",
    )
    max_leaf_tokens: int = Field(
        default=4, ge=1, description="tokens of a name that are shown as a leaf"
    )
    walks: WalkSettings = WalkSettings()
    published: tuple[Published, ...] = Field(
        default=(), description="results of others on the same split"
    )

    @model_validator(mode="after")
    def _check_split(self) -> CompleteSettings:
        if bool(self.valid) != bool(self.test):
            raise ValueError("name both valid and test, or neither")
        return self

    @property
    def is_on(self) -> bool:
        """Whether the run completes a graph."""
        return bool(self.test)
