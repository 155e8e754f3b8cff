from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphmert.domains.vectors.rollout import DecodedText, NearestTexts, VectorDecoder, roll_out
from graphmert.errors import ConfigError, DataError
from tiny_vectors import walk, write_documents


def test_each_step_sees_what_was_predicted_before() -> None:
    seen: list[np.ndarray] = []

    def predictor(contexts: np.ndarray) -> np.ndarray:
        seen.append(contexts.copy())
        return contexts.sum(1)

    context = walk(3, 4)
    found = roll_out(predictor, context, n_steps=3, normalise=False)
    assert np.array_equal(seen[0][0], context)
    assert np.array_equal(seen[1][0], np.stack([context[1], context[2], found[0]]))
    assert np.array_equal(seen[2][0], np.stack([context[2], found[0], found[1]]))
    assert np.allclose(found[0], context.sum(0))
    assert found.shape == (3, 4)


def test_predictions_get_the_length_of_the_context() -> None:
    context = 2 * walk(5, 4)
    found = roll_out(lambda x: 0.01 * x.mean(1), context, n_steps=4)
    assert np.allclose(np.linalg.norm(found, axis=1), 2, atol=1e-6)
    with pytest.raises(ConfigError, match="nothing to predict"):
        roll_out(lambda x: x[:, 0], context, n_steps=0)


def test_nearest_texts(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "v", [6, 7])
    decoder: VectorDecoder = NearestTexts(table, k=3, exclude=[2])
    queries = np.stack([3 * table.vectors[4], table.vectors[2]])
    found = decoder.decode(queries)
    cosines = queries.astype(float) @ table.vectors.T.astype(float)
    cosines /= np.linalg.norm(queries, axis=1, keepdims=True)
    cosines[:, 2] = -2
    for index, texts in enumerate(found):
        rows = np.argsort(-cosines[index], kind="stable")[:3]
        assert [one.row for one in texts] == rows.tolist()
        assert [one.score for one in texts] == pytest.approx(cosines[index, rows], abs=1e-6)
        assert texts[0].text == f"sentence {texts[0].row} of {texts[0].doc_id}"
    assert found[0][0] == DecodedText("sentence 4 of d0", found[0][0].score, 4, "d0")
    assert 2 not in [one.row for one in found[1]]


def test_queries_of_another_dimension(tmp_path: Path) -> None:
    table = write_documents(tmp_path / "v", [6, 7])
    with pytest.raises(DataError, match="another dimension"):
        NearestTexts(table).decode(np.zeros((1, 5), np.float32))


def test_any_decoder_fits_the_protocol() -> None:
    class Writer:
        def decode(self, vectors: np.ndarray) -> list[list[DecodedText]]:
            return [[DecodedText(f"{len(vector)} numbers")] for vector in vectors]

    decoder: VectorDecoder = Writer()
    assert decoder.decode(walk(2, 4))[1][0].text == "4 numbers"
