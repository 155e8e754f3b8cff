"""What went wrong in earlier networks of this kind, each as a test of ours.

Positions that start at 0, and a body that is not itself without leaves, are in
tests/parity/test_body.py; copies of masked triples in tests/property/test_chain.py and
tests/unit/test_masking.py; splits that leak repositories in tests/unit/domains/code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from golden.forms import CLS, MASK, PAD, SEP, UNK, make_model, make_vocabulary, random_chains
from graphmert.attention import log_decay, node_distance
from graphmert.batch import ChainBatch, collate, collate_masked
from graphmert.chain import LeafTriple, LeafyChain
from graphmert.masking import IGNORE, MaskingConfig, mask_chain
from graphmert.model import GraphMERT
from graphmert.presets import FORMS
from graphmert.pretrained import from_body
from graphmert.recipe import TrainConfig

N_RELATIONS = 12
SMALL: dict[str, Any] = FORMS["codebert"] | {"n_relations": N_RELATIONS, "dropout": 0.0}
MASKING = MaskingConfig(mlm_rate=0.15, tail_rate=0.0, relation_rate=0.15, both_rate=0.0)


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small RoBERTa, its parameters away from their start."""
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=34, pad_token_id=1, bos_token_id=0,
        eos_token_id=2, type_vocab_size=1, attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
    )  # fmt: skip
    made = transformers.RobertaForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("roberta")
    made.save_pretrained(folder)
    return folder


@pytest.fixture
def model(body: Path) -> GraphMERT:
    return from_body(body, **SMALL).eval()


def chain(n_triples: int = 3) -> LeafyChain:
    """Several one-token triples of different tails on one root, and a longer tail on another."""
    same = tuple(LeafTriple(r, 2, 4, (30 + r,), r, 9) for r in range(n_triples))
    return LeafyChain((0, *range(10, 20), 2), (*same, LeafTriple(5, 6, 7, (40, 41, 42), 8, 7)))


def test_slots_of_one_root_have_their_own_logits(model: GraphMERT) -> None:
    """Root states spread over the slots gave every slot the same logits."""
    equal_tails = LeafyChain(
        chain().roots, tuple(LeafTriple(r, 2, 4, (30,), 0, 9) for r in (1, 1, 1))
    )
    for given in (chain(), equal_tails):
        batch = collate([given], pad_id=1)
        with torch.no_grad():
            logits = model.relation_logits(model(batch), batch)
        gaps = torch.cdist(logits[:3], logits[:3])
        assert gaps[~torch.eye(3, dtype=torch.bool)].min() > 1e-4


def test_h_gat_over_one_head_token_still_learns(model: GraphMERT) -> None:
    """Softmax over a single key is 1; the projection of keys and values has a gradient even so."""
    one = LeafyChain(chain().roots, (LeafTriple(0, 2, 3, (30,)), LeafTriple(1, 2, 3, (31,))))
    two = LeafyChain(chain().roots, (LeafTriple(0, 2, 4, (30, 33)),))
    batch = collate([one, two], pad_id=1)
    model.relation_logits(model(batch), batch).square().sum().backward()
    assert model.embed.hgat is not None
    for name, parameter in model.embed.hgat.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_code_tokens_attend_to_each_other_at_any_distance(model: GraphMERT) -> None:
    """Roots are |i - j| apart, and every finite distance has a positive, finite decay."""
    long = LeafyChain((0, *([10] * 30), 2), (LeafTriple(0, 3, 4, (30,)),))
    batch = collate([long], pad_id=1)
    sp = node_distance(
        batch.kind_BN, batch.root_BN, batch.triple_BN, batch.slot_BN, rule="shortest"
    )[0]
    n = len(long.roots)
    wanted = (torch.arange(n)[:, None] - torch.arange(n)[None, :]).abs()
    assert torch.equal(sp[:n, :n], wanted)
    factor = log_decay(torch.arange(2000), torch.tensor(1.0), decay_base=0.6).exp()
    assert torch.isfinite(factor).all()
    assert (factor[:1024] > 0).all()
    # the first token's state depends on the last one's
    moved = LeafyChain((*long.roots[:-2], 11, 2), long.triples)
    with torch.no_grad():
        gap = (model(batch)[0, 0] - model(collate([moved], pad_id=1))[0, 0]).abs().max()
    assert gap > 1e-6


@pytest.mark.parametrize("changes", [{"decay_base": 1.0}, {"decay": "none"}])
def test_without_leaves_and_decay_it_is_its_roberta(body: Path, changes: dict[str, Any]) -> None:
    made = from_body(body, **(SMALL | changes)).eval()
    roberta = transformers.RobertaModel.from_pretrained(body, add_pooling_layer=False).eval()
    tokens = torch.tensor([[0, *range(10, 38), 2], [0, *range(20, 30), 2, *[1] * 18]])
    batch = collate([LeafyChain(tuple(row[row != 1].tolist())) for row in tokens], pad_id=1)
    with torch.no_grad():
        wanted = roberta(input_ids=tokens, attention_mask=(tokens != 1).long()).last_hidden_state
        found = made(batch)
    real = batch.padding_mask_BN
    torch.testing.assert_close(found[real], wanted[real], rtol=0, atol=1e-5)
    assert made.embed.position is not None
    assert made.embed.position.num_embeddings == 1024 + 2


def test_both_token_types_start_from_the_only_one(model: GraphMERT) -> None:
    assert model.embed.node_type is not None
    first, second = model.embed.node_type.weight
    assert torch.equal(first, second)
    assert model.embed.node_type.num_embeddings == 2


def test_a_hidden_relation_is_hidden_from_h_gat_and_bias(body: Path) -> None:
    """Two chains that differ in the masked relation alone look the same to the network."""
    made = from_body(body, **(SMALL | {"relation_bias": True, "n_hops": 2})).eval()
    with torch.no_grad():
        for layer in made.encoder.layers:
            layer.relation_bias.normal_()  # type: ignore[union-attr]
    vocabulary = make_vocabulary()
    vocabulary = type(vocabulary)(4, frozenset({0, 1, 2, 3, 4}), np.arange(5, 60), N_RELATIONS)
    hide = MaskingConfig(mlm_rate=0.0, tail_rate=0.0, relation_rate=1.0, both_rate=0.0)
    states = []
    for relation in (0, 7):
        given = LeafyChain(chain().roots, (LeafTriple(relation, 2, 4, (30,), 0, 9),))
        for seed in range(20):  # one draw in ten shows another relation, one the own
            masked = mask_chain(
                given, hide, vocabulary, np.random.default_rng(seed), isolated=False
            )
            if masked.chain.triples[0].relation == N_RELATIONS:
                break
        batch = collate_masked([masked], pad_id=1)
        assert batch.relation_T.tolist() == [N_RELATIONS]
        assert batch.labels is not None
        assert batch.labels.relation_label_P.tolist() == [relation]
        with torch.no_grad():
            states.append(made(batch))
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


def test_about_15_percent_of_relations_are_masked() -> None:
    vocabulary = make_vocabulary()
    rng = np.random.default_rng(0)
    n_asked = n_all = 0
    for seed in range(300):
        masked = mask_chain(random_chains(seed)[0], MASKING, vocabulary, rng, isolated=False)
        n_asked += int((masked.relation_labels != IGNORE).sum())
        n_all += len(masked.relation_labels)
    assert n_asked / n_all == pytest.approx(0.15, abs=0.025)


def test_special_tokens_are_never_masked_or_predicted() -> None:
    vocabulary = make_vocabulary()
    rng = np.random.default_rng(1)
    given = LeafyChain((CLS, 8, 9, UNK, 11, PAD, SEP, 12, SEP))
    heavy = MaskingConfig(mlm_rate=1.0)
    for _ in range(50):
        masked = mask_chain(given, heavy, vocabulary, rng, isolated=False)
        for place, token in enumerate(given.roots):
            if token in (CLS, UNK, PAD, SEP):
                assert masked.chain.roots[place] == token
                assert masked.root_labels[place] == IGNORE
        drawn = {t for t in masked.chain.roots if t not in given.roots}
        assert drawn <= set(range(5, 41)) | {MASK}


def test_nothing_asked_costs_nothing(model: GraphMERT) -> None:
    """All labels ignored gave NaN."""
    vocabulary = make_vocabulary()
    nothing = MaskingConfig(mlm_rate=0.0, tail_rate=0.0, relation_rate=0.0, both_rate=0.0)
    masked = mask_chain(chain(), nothing, vocabulary, np.random.default_rng(0), isolated=False)
    losses = model.loss(collate_masked([masked], pad_id=1))
    assert {name: (float(s), float(n)) for name, (s, n) in losses.items()} == {
        "mlm": (0.0, 0.0),
        "relation": (0.0, 0.0),
    }
    sum(s for s, _ in losses.values()).backward()  # type: ignore[union-attr]


def test_mlm_and_mnm_come_from_one_forward_pass(
    model: GraphMERT, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[ChainBatch] = []
    forward = GraphMERT.forward

    def counted(self: GraphMERT, batch: ChainBatch) -> torch.Tensor:
        calls.append(batch)
        return forward(self, batch)

    monkeypatch.setattr(GraphMERT, "forward", counted)
    vocabulary = make_vocabulary()
    heavy = MaskingConfig(mlm_rate=0.5, tail_rate=0.0, relation_rate=1.0, both_rate=0.0)
    masked = mask_chain(chain(), heavy, vocabulary, np.random.default_rng(0), isolated=False)
    losses = model.loss(collate_masked([masked], pad_id=1))
    assert len(calls) == 1
    assert all(float(count) > 0 for _, count in losses.values())
    config = TrainConfig(total_steps=1, weights={"mlm": 0.6, "relation": 0.4})
    total = sum(config.weight_at(name, 0) * s / n for name, (s, n) in losses.items())
    wanted = 0.6 * losses["mlm"][0] / losses["mlm"][1]
    wanted = wanted + 0.4 * losses["relation"][0] / losses["relation"][1]
    assert float(total) == pytest.approx(float(wanted))  # type: ignore[arg-type]


def test_a_tail_keeps_all_its_tokens(model: GraphMERT) -> None:
    """Only the first token of a tail was kept."""
    batch = collate([chain()], pad_id=1)
    tails = [
        batch.token_BN.reshape(-1)[batch.leaf_index_TL[t][batch.leaf_mask_TL[t]]].tolist()
        for t in range(batch.n_triples)
    ]
    assert tails == [[30], [31], [32], [40, 41, 42]]


def test_pretrained_and_new_parameters_have_their_own_rates(model: GraphMERT) -> None:
    from graphmert.optimizer import build_optimizer

    config = TrainConfig(total_steps=1, learning_rate=4e-4, pretrained_learning_rate=5e-5)
    optimizer, peaks = build_optimizer(model, config)
    rate = {
        id(parameter): peak
        for group, peak in zip(optimizer.param_groups, peaks, strict=True)
        for parameter in group["params"]
    }
    numbers = dict(model.named_parameters())
    assert rate[id(numbers["encoder.layers.0.qkv.weight"])] == 5e-5
    assert rate[id(numbers["embed.token.weight"])] == 5e-5
    for name in ("relation_head.linear.weight", "embed.hgat.shared", "encoder.p"):
        assert rate[id(numbers[name])] == 4e-4


def test_every_parameter_of_the_form_receives_a_gradient(body: Path) -> None:
    made = from_body(body, **SMALL)
    vocabulary = type(make_vocabulary())(
        4, frozenset({0, 1, 2, 3, 4}), np.arange(5, 60), N_RELATIONS
    )
    heavy = MaskingConfig(mlm_rate=0.5, tail_rate=0.0, relation_rate=0.6, both_rate=0.0)
    rng = np.random.default_rng(0)
    masked = [mask_chain(chain(7), heavy, vocabulary, rng, isolated=False) for _ in range(6)]
    losses = made.loss(collate_masked(masked, pad_id=1))
    sum(s / n for s, n in losses.values()).backward()  # type: ignore[union-attr]
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_random_predictions_cost_ln_12(body: Path) -> None:
    made = from_body(body, **SMALL).eval()
    batch = collate([chain(7)], pad_id=1)
    with torch.no_grad():
        made.relation_head.linear.weight.mul_(0.01)  # type: ignore[union-attr]
        log_p = made.relation_logits(made(batch), batch).log_softmax(-1)
    assert float(-log_p.mean()) == pytest.approx(np.log(12), abs=0.05)


def test_make_model_code_form_hides_relations_too() -> None:
    """The bias table has no row for the hidden relation: its bias is nought, not learned."""
    made = make_model("code")
    for layer in made.encoder.layers:
        assert layer.relation_bias.shape == (made.config.n_relations, 2)  # type: ignore[union-attr]
