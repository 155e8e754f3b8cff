"""Without leaves and with lambda = 1 the model is the BERT or RoBERTa it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from graphmert import pretrained
from graphmert.batch import ChainBatch, collate
from graphmert.chain import LeafyChain
from graphmert.errors import CapabilityError, CheckpointError
from graphmert.model import GraphMERT

N_REAL_POSITIONS = 20
SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "initializer_range": 0.4,
    "attn_implementation": "eager",
}
BODIES = {
    "bert": lambda: transformers.BertForMaskedLM(
        transformers.BertConfig(**SIZES, max_position_embeddings=N_REAL_POSITIONS, pad_token_id=0)
    ),
    "roberta": lambda: transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(
            **SIZES,
            max_position_embeddings=N_REAL_POSITIONS + 2,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
            type_vocab_size=1,
        )
    ),
}
EXACT = {"decay": "log_bias", "decay_base": 1.0}


def make_body(family: str, folder: Path, *, seed: int = 0) -> transformers.PreTrainedModel:
    """A small body in eval mode, saved to the folder; no parameter is left at zero or one."""
    torch.manual_seed(seed)
    body = BODIES[family]().eval()
    with torch.no_grad():
        for name, parameter in body.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            if "position_embeddings" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    body.save_pretrained(folder)
    return body


def make_batch(pad_id: int, lengths: tuple[int, ...] = (13, 5, 20)) -> ChainBatch:
    rng = np.random.default_rng(3)
    chains = [LeafyChain(tuple(rng.integers(5, 50, size=n).tolist())) for n in lengths]
    return collate(chains, pad_id=pad_id)


@pytest.mark.parametrize("changes", [EXACT, {"decay": "none"}], ids=["lambda-one", "no-decay"])
@pytest.mark.parametrize("hgat", ["low_rank", "none"])
@pytest.mark.parametrize("family", sorted(BODIES))
def test_states_and_logits_equal_the_body(
    tmp_path: Path, family: str, hgat: str, changes: dict[str, Any]
) -> None:
    body = make_body(family, tmp_path)
    model = pretrained.from_body(tmp_path, hgat=hgat, **changes).eval()
    batch = make_batch(body.config.pad_token_id)
    with torch.no_grad():
        theirs = body(
            input_ids=batch.token_BN,
            attention_mask=batch.padding_mask_BN.long(),
            output_hidden_states=True,
        )
        states_BND = model(batch)
        flat_ND = states_BND.reshape(-1, states_BND.shape[-1])
        real_P = batch.padding_mask_BN.reshape(-1).nonzero()[:, 0]
        logits_PV = model.token_logits(flat_ND, real_P)
    close = {"rtol": 0.0, "atol": 1e-5}
    wanted_ND = theirs.hidden_states[-1].reshape(flat_ND.shape)
    torch.testing.assert_close(flat_ND[real_P], wanted_ND[real_P], **close)
    torch.testing.assert_close(logits_PV, theirs.logits.flatten(0, 1)[real_P], **close)
    assert logits_PV.std() > 0.5


@pytest.mark.parametrize("family", sorted(BODIES))
def test_every_parameter_of_the_body_is_used(tmp_path: Path, family: str) -> None:
    body = make_body(family, tmp_path)
    model = pretrained.from_body(tmp_path)
    copied = model.pretrained_parameter_names()
    numbers = dict(model.named_parameters())
    n_theirs = sum(p.numel() for p in body.parameters())
    n_added_types = 0 if body.config.type_vocab_size == 2 else body.config.hidden_size
    assert sum(numbers[name].numel() for name in copied) == n_theirs + n_added_types
    assert {name.split(".")[0] for name in set(numbers) - copied} == {
        "embed", "encoder", "sbo_head", "relation_head", "entity_head",
    }  # fmt: skip
    rest = {n for n in set(numbers) - copied if n.startswith(("embed", "encoder"))}
    assert all(n.startswith(("embed.hgat", "embed.relation", "embed.slot", "embed.name_slot"))
               or n == "encoder.p" for n in rest)  # fmt: skip


def test_roberta_counts_positions_from_past_the_pad(tmp_path: Path) -> None:
    body = make_body("roberta", tmp_path)
    model = pretrained.from_body(tmp_path)
    assert (model.config.position_offset, model.config.n_positions) == (2, N_REAL_POSITIONS)
    assert model.embed.position is not None
    theirs = body.roberta.embeddings.position_embeddings.weight
    torch.testing.assert_close(model.embed.position.weight, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("n_positions", [47, 20, 6], ids=["longer", "equal", "shorter"])
@pytest.mark.parametrize("family", sorted(BODIES))
def test_position_extension(tmp_path: Path, family: str, n_positions: int) -> None:
    """Real position r starts from row r mod n of the body's n real ones."""
    body = make_body(family, tmp_path)
    offset = 2 if family == "roberta" else 0
    theirs = body.base_model.embeddings.position_embeddings.weight[offset:]
    model = pretrained.from_body(tmp_path, n_positions=n_positions)
    assert model.embed.position is not None
    ours = model.embed.position.weight
    assert len(ours) == offset + n_positions
    for row in range(n_positions):
        torch.testing.assert_close(
            ours[offset + row], theirs[row % N_REAL_POSITIONS], rtol=0, atol=0
        )


@pytest.mark.parametrize("family", sorted(BODIES))
def test_both_types_start_from_the_first(tmp_path: Path, family: str) -> None:
    body = make_body(family, tmp_path)
    model = pretrained.from_body(tmp_path)
    assert model.embed.node_type is not None
    first = body.base_model.embeddings.token_type_embeddings.weight[0]
    for row in model.embed.node_type.weight:
        torch.testing.assert_close(row, first, rtol=0, atol=0)


def states_of(model: GraphMERT) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(make_batch(0))


def test_old_names_in_a_pickle(tmp_path: Path) -> None:
    """Old checkpoints call the LayerNorm's parameters gamma and beta."""
    body = make_body("bert", tmp_path / "new")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in body.state_dict().items()
    }
    assert any(name.endswith("gamma") for name in old)
    (tmp_path / "old").mkdir()
    torch.save(old, tmp_path / "old" / "pytorch_model.bin")
    body.config.save_pretrained(tmp_path / "old")
    new, same = (pretrained.from_body(tmp_path / n, **EXACT) for n in ("new", "old"))
    torch.testing.assert_close(states_of(new), states_of(same), rtol=0, atol=0)


def test_a_body_without_vocabulary_head_starts_from_the_identity(tmp_path: Path) -> None:
    make_body("bert", tmp_path / "whole")
    body = transformers.BertModel.from_pretrained(tmp_path / "whole")
    body.save_pretrained(tmp_path / "bare")
    model = pretrained.from_body(tmp_path / "bare", **EXACT)
    assert model.vocab_head is not None
    assert torch.equal(model.vocab_head.transform.dense.weight, torch.eye(16))
    assert not any(n.startswith("vocab_head") for n in model.pretrained_parameter_names())
    whole = pretrained.from_body(tmp_path / "whole", **EXACT)
    torch.testing.assert_close(states_of(model), states_of(whole), rtol=0, atol=0)


def test_bodies_that_do_not_fit_are_named(tmp_path: Path) -> None:
    make_body("bert", tmp_path / "bert")
    with pytest.raises(CheckpointError, match=r"embed\.token\.weight"):
        pretrained.from_body(tmp_path / "bert", vocab_size=51)
    transformers.GPT2Config(n_layer=1).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(CapabilityError, match="gpt2"):
        pretrained.from_body(tmp_path / "gpt2")
    transformers.BertConfig(**SIZES, hidden_act="relu").save_pretrained(tmp_path / "relu")
    with pytest.raises(CapabilityError, match="relu"):
        pretrained.from_body(tmp_path / "relu")
    with pytest.raises(CapabilityError, match="nowhere"):
        pretrained.from_body(tmp_path / "nowhere")
    (tmp_path / "bert" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        pretrained.from_body(tmp_path / "bert")
