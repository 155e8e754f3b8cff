from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from graphmert.errors import CapabilityError, DataError
from graphmert.evaluate.baselines import Query
from graphmert.evaluate.biencoder import (
    BiEncoder,
    BiEncoderBaseline,
    BiEncoderConfig,
    BiEncoderData,
    TrainTriples,
    draw_batch,
    pad,
    query_text,
    tokenise,
    triple_weights,
)
from graphmert.recipe import TrainConfig
from graphmert.tokens import Tokenizer
from graphmert.train import train

NAMES = ["red cell", "blue cell", "cell", "death of a cell", "growth", "red"]
TEXTS = [f"{name}: a thing that is {name}" for name in NAMES]
LABELS = ["is a", "part of"]
TRIPLES = [(0, 0, 2), (0, 0, 5), (1, 0, 2), (3, 1, 2), (4, 1, 3), (0, 1, 4)]
CONFIG = BiEncoderConfig(
    max_query_tokens=24,
    max_name_tokens=8,
    batch_size=4,
    n_sampled_negatives=3,
    encode_precision="fp32",
)


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("body")
    tokenizer = Tokenizer.train(TEXTS + LABELS, vocab_size=80)
    tokenizer.save(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def model(body: Path) -> BiEncoder:
    torch.manual_seed(0)
    return BiEncoder.from_body(body, CONFIG)


def data_of(model: BiEncoder) -> BiEncoderData:
    return BiEncoderData(
        TrainTriples.build(TRIPLES),
        texts=TEXTS,
        names=NAMES,
        relation_labels=LABELS,
        tokenizer=model.tokenizer,
        config=CONFIG,
    )


def test_weights_are_the_inverse_root_of_relation_counts() -> None:
    weights = triple_weights(np.array([0, 0, 0, 0, 1]), "sqrt")
    np.testing.assert_allclose(weights, np.array([0.5, 0.5, 0.5, 0.5, 1.0]) / 3)
    np.testing.assert_allclose(triple_weights(np.array([0, 0, 1]), "none"), 1 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_draws_hold_their_tails_and_exclude_what_is_true(seed: int) -> None:
    triples = TrainTriples.build(TRIPLES)
    drawn = draw_batch(
        triples,
        np.cumsum(triple_weights(triples.relation, "sqrt")),
        n_entities=len(NAMES),
        batch_size=8,
        n_sampled_negatives=20,
        rng=np.random.default_rng(seed),
    )
    assert len(set(drawn.candidate)) == len(drawn.candidate)
    for row, index in enumerate(drawn.triple):
        head, relation, tail = TRIPLES[index]
        assert drawn.candidate[drawn.positive[row]] == tail
        for column, entity in enumerate(drawn.candidate):
            is_other_truth = (head, relation, entity) in TRIPLES and entity != tail
            assert drawn.excluded[row, column] == is_other_truth


def test_rare_relations_are_drawn_more_often_than_their_share() -> None:
    triples = TrainTriples.build([(i, 0, i + 1) for i in range(99)] + [(0, 1, 5)])
    drawn = draw_batch(
        triples,
        np.cumsum(triple_weights(triples.relation, "sqrt")),
        n_entities=100,
        batch_size=4000,
        n_sampled_negatives=0,
        rng=np.random.default_rng(0),
    )
    share = (triples.relation[drawn.triple] == 1).mean()
    assert share == pytest.approx(1 / (1 + math.sqrt(99)), rel=0.15)


def test_no_triples_are_refused() -> None:
    with pytest.raises(DataError):
        TrainTriples.build([])


def test_batches_are_a_function_of_the_step(model: BiEncoder) -> None:
    first, again, other = (data_of(model).batch(step)[0] for step in (3, 3, 4))
    assert torch.equal(first.query_ids, again.query_ids)
    assert torch.equal(first.name_ids, again.name_ids)
    assert first.query_ids.shape != other.query_ids.shape or not torch.equal(
        first.query_ids, other.query_ids
    )
    assert data_of(model).steps_per_epoch == 2


def test_texts_are_cut_between_their_ends(model: BiEncoder) -> None:
    tokenizer = model.tokenizer
    (row,) = tokenise(["red cell red cell red cell"], tokenizer, max_tokens=4)
    assert len(row) == 4
    assert (row[0], row[-1]) == (tokenizer.cls_id, tokenizer.sep_id)
    ids, padding = pad([[1, 2, 3], [4]], 9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert padding.tolist() == [[True] * 3, [True, False, False]]
    assert query_text(Query(0, "x", 1, "x: y"), LABELS) == "part of: x: y"


def test_loss_is_infonce_without_false_negatives(model: BiEncoder) -> None:
    model.eval()
    batch = data_of(model).batch(0)[0]
    total, count = model.loss(batch)["contrastive"]
    q = model(batch.query_ids, batch.query_padding).detach().double().numpy()
    e = model(batch.name_ids, batch.name_padding).detach().double().numpy()
    expected = 0.0
    for row in range(len(q)):
        scores = [
            float(q[row] @ e[column]) / CONFIG.temperature
            for column in range(len(e))
            if not batch.excluded[row, column]
        ]
        true = float(q[row] @ e[batch.positive[row]]) / CONFIG.temperature
        expected += math.log(sum(math.exp(s) for s in scores)) - true
    assert float(total.detach()) == pytest.approx(expected, rel=1e-4)
    assert float(count) == batch.n_samples == batch.counts()["contrastive"] == 4


def test_vectors_are_unit_and_do_not_depend_on_company(model: BiEncoder) -> None:
    model.train()
    vectors = model.encode_texts(TEXTS, max_tokens=24, batch_size=2)
    assert model.training
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = np.concatenate([model.encode_texts([t], max_tokens=24) for t in TEXTS])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    assert model.encode_texts([], max_tokens=24).shape == (0, 0)
    model.config = CONFIG.model_copy(update={"encode_precision": "bf16"})
    short = model.encode_texts(TEXTS, max_tokens=24)
    assert short.dtype == np.float32
    np.testing.assert_allclose(short, vectors, atol=0.05)
    assert not np.array_equal(short, vectors)


def test_every_parameter_in_use_gets_a_gradient_and_training_ranks_the_tail_first(
    model: BiEncoder,
) -> None:
    data = data_of(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0)
    model.eval()  # no dropout, so that few steps suffice
    for step in range(60):
        ((total, count),) = model.loss(data.batch(step)[0]).values()
        optimizer.zero_grad()
        (total / count).backward()
        if step == 0:
            missing = [n for n, p in model.named_parameters() if p.grad is None]
            assert missing == []
        optimizer.step()
    baseline = BiEncoderBaseline(model, NAMES, LABELS, batch_size=2)
    scores = baseline.score([Query(1, NAMES[1], 0, TEXTS[1]), Query(4, NAMES[4], 1, TEXTS[4])])
    assert scores.argmax(axis=1).tolist() == [2, 3]
    assert scores[0, 1] == -np.inf


def test_the_training_loop_takes_model_and_data(model: BiEncoder, tmp_path: Path) -> None:
    config = TrainConfig(
        total_steps=3, batch_size=4, warmup_steps=1, checkpoint_every=3, log_every=1, device="cpu"
    )
    result = train(model, data_of(model), config=config, out_dir=tmp_path)
    assert result.n_steps == 3
    assert len((tmp_path / "training.jsonl").read_text().splitlines()) == 3


def test_pretrained_names_are_the_bodys(model: BiEncoder) -> None:
    names = {name for name, _ in model.named_parameters()}
    assert names - model.pretrained_parameter_names() == {"log_scale"}


def test_missing_body_is_a_capability_error(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError):
        BiEncoder.from_body(tmp_path / "absent", CONFIG)
