"""Import of checkpoints of the published reference implementation."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModel

from golden import make_reference_checkpoint as make
from golden import reference_encoder as reference
from graphmert.batch import collate_masked
from graphmert.chain import LeafTriple, LeafyChain
from graphmert.convert import convert_reference
from graphmert.errors import CapabilityError, CheckpointError, ConfigError
from graphmert.masking import IGNORE, MaskedChain
from graphmert.model import GraphMERT

TOKENS = "graphmert.graph_encoder.graph_node_feature.atom_encoder.weight"
QUERY = "graphmert.graph_encoder.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make.write_reference_checkpoint(tmp_path / "theirs", seed=5)
    return tmp_path / "theirs"


def as_masked(
    config: dict[str, Any], relations: dict[str, int], given: reference.ReferenceInput
) -> MaskedChain:
    """The same input in our terms; relations go by name."""
    n_roots, n_leaves = config["root_nodes"], config["max_nodes"] // config["root_nodes"] - 1
    names = {number: name for name, number in make.relation_map(config).items()}
    triples = tuple(
        LeafTriple(relations[names[number]], start, end, tail)
        for number, start, end, tail in given.triples
    )

    def labels(first: int, size: int) -> np.ndarray:
        return np.array([given.labels.get(first + k, IGNORE) for k in range(size)], np.int64)

    return MaskedChain(
        chain=LeafyChain(given.roots, triples),
        root_labels=labels(0, len(given.roots)),
        leaf_labels=tuple(
            labels(n_roots + n_leaves * triple.head_start, len(triple.tail)) for triple in triples
        ),
        relation_labels=np.full(len(triples), IGNORE),
        entity_labels=np.full(len(triples), -1),
        spans=np.array(given.spans, dtype=np.int64).reshape(-1, 2),
    )


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)], ids=["f64", "f32"]
)
def test_logits_and_loss_equal_the_reference(
    source: Path, tmp_path: Path, dtype: torch.dtype, tolerance: float, weights: str
) -> None:
    arrays = load_file(source / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    if weights == "pytorch_model.bin":
        to_pickle(source)
    convert_reference(source, tmp_path / "ours")
    model = GraphMERT.from_pretrained(tmp_path / "ours").to(dtype).eval()
    table = json.loads((tmp_path / "ours" / "relations.json").read_text())
    relations = {name: entry["index"] for name, entry in table.items()}
    given = make.make_inputs(config, seed=5)
    assert {len(t[3]) for g in given for t in g.triples} == {1, 2, 3}
    assert {t[2] - t[1] for g in given for t in g.triples} == {1, 2, 3}
    wanted = [reference.run_checkpoint(arrays, config, one) for one in given]
    batch = collate_masked([as_masked(config, relations, one) for one in given])
    with torch.no_grad():
        states_BND = model(batch)
        logits_PV = model.token_logits(
            states_BND.flatten(0, 1), batch.padding_mask_BN.flatten().nonzero()[:, 0]
        )
        losses = model.loss(batch)
    every = np.concatenate([one.logits_NV for one in wanted])
    np.testing.assert_allclose(logits_PV.numpy(), every, rtol=0, atol=tolerance)
    n_nodes = [len(one.labels) for one in given]
    n_pairs = [len(one.pair_logits_MV) for one in wanted]
    loss = np.average([one.node_loss for one in wanted], weights=n_nodes)
    loss += np.average([one.pair_loss for one in wanted], weights=n_pairs)
    assert losses.keys() == {"nodes", "sbo"}
    assert [int(count) for _, count in losses.values()] == [sum(n_nodes), sum(n_pairs)]
    found = sum(float(total / count) for total, count in losses.values())
    assert found == pytest.approx(loss, abs=tolerance)


def test_graph_token_row_is_imported(source: Path, tmp_path: Path) -> None:
    """Nothing reads the graph token's state, so its parameters are compared themselves."""
    convert_reference(source, tmp_path / "ours")
    model = GraphMERT.from_pretrained(tmp_path / "ours")
    arrays = load_file(source / "model.safetensors")
    graph = "graphmert.graph_encoder"
    assert model.encoder.graph_token is not None
    assert model.encoder.graph_distance is not None
    token = arrays[f"{graph}.graph_node_feature.graph_token.weight"]
    np.testing.assert_array_equal(model.encoder.graph_token.detach().numpy(), token)
    distance = arrays[f"{graph}.graph_token_virtual_distance"][0]
    np.testing.assert_array_equal(model.encoder.graph_distance.detach().numpy(), distance)


def test_no_relation_becomes_the_last_row(source: Path, tmp_path: Path) -> None:
    convert_reference(source, tmp_path / "ours")
    arrays = load_file(source / "model.safetensors")
    hgat = GraphMERT.from_pretrained(tmp_path / "ours").embed.hgat
    assert hgat is not None
    node = "graphmert.graph_encoder.graph_node_feature"
    flat = arrays[f"{node}.relation_matrix_encoder.weight"]
    pairs = arrays[f"{node}.relation_encoder.weight"]
    for ours, theirs in [(5, 0), (0, 1), (4, 5)]:
        matrix = hgat.matrix[ours].detach().numpy()
        np.testing.assert_array_equal(matrix, flat[theirs].reshape(matrix.shape))
        score = hgat.score[ours].detach().numpy()
        np.testing.assert_array_equal(score[0], pairs[theirs][0::2])
        np.testing.assert_array_equal(score[1], pairs[theirs][1::2])


def test_what_is_written_and_reported(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "ours"
    change_json(source / "config.json", architectures=["X"], n_extra=3, dropout=None)
    (source / "training_args.bin").write_bytes(b"")
    (source / "tokenizer.json").write_text("{}")
    names = make.relation_map(make.make_config())
    del names["relation_3"]
    (source / "relation_map.json").write_text(json.dumps(names))
    report = convert_reference(source, out)
    assert sorted(p.name for p in out.iterdir()) == [
        "config.json", "model.safetensors", "relations.json", "tokenizer.json",
    ]  # fmt: skip
    assert [p.name for p in out.parent.iterdir()] == ["ours"]
    relations = json.loads((out / "relations.json").read_text())
    assert relations["relation_1"] == {"index": 0, "label": "relation 1"}
    assert {name: entry["index"] for name, entry in relations.items()} == {
        f"relation_{k}": k - 1 for k in (1, 2, 4, 5)
    }
    arrays = load_file(source / "model.safetensors")
    assert report == {
        "source": str(source),
        "path": str(out),
        "form": "reference",
        "weights": "model.safetensors",
        "stored_as": ["float32"],
        "n_tensors": len(arrays),
        "n_parameters": sum(array.size for array in arrays.values()),
        "n_relations": 5,
        "unnamed_relations": [2],
        "tokenizer_files": ["tokenizer.json"],
        "tied_tensors": [],
        "assumed_config": {"dropout": 0.1},
        "ignored_config_keys": ["architectures", "n_extra"],
        "ignored_files": ["training_args.bin"],
    }
    json.dumps(report)
    assert type(AutoModel.from_pretrained(out)) is GraphMERT


def test_settings_of_the_model(source: Path, tmp_path: Path) -> None:
    convert_reference(source, tmp_path / "ours")
    c = GraphMERT.from_pretrained(tmp_path / "ours").config
    assert (c.vocab_size, c.hidden_size, c.ffn_size, c.n_layers, c.n_attn_heads) == (
        37,
        16,
        24,
        2,
        4,
    )
    assert (c.n_root_slots, c.n_leaf_slots, c.n_relations, c.max_span) == (12, 3, 5, 4)
    assert (c.decay_base, c.dropout, c.relation_dropout, c.norm_eps) == (0.6, 0.1, 0.3, 1e-5)
    assert (c.decay, c.distance_offset, c.loss_form) == ("logits", 1, "joint")


def test_without_span_boundaries(source: Path, tmp_path: Path) -> None:
    change_json(source / "config.json", mlm_sbo=False)
    change_arrays(source, lambda a: [a.pop(n) for n in list(a) if n.startswith("lm_pair_head")])
    convert_reference(source, tmp_path / "ours")
    model = GraphMERT.from_pretrained(tmp_path / "ours")
    assert model.sbo_head is None
    assert tuple(model.config.objectives) == ("mlm", "leaf")


def test_as_many_span_places_as_leaves(source: Path, tmp_path: Path) -> None:
    name = "lm_pair_head.position_embeddings.weight"
    change_arrays(source, lambda a: a.update({name: a[name][:3]}))
    convert_reference(source, tmp_path / "ours")
    assert GraphMERT.from_pretrained(tmp_path / "ours").config.max_span == 3


def test_the_tied_decoder_may_be_stored_twice(source: Path, tmp_path: Path) -> None:
    def tie(arrays: dict[str, np.ndarray]) -> None:
        arrays["lm_head.decoder.weight"] = arrays[TOKENS].copy()
        arrays["lm_head.decoder.bias"] = arrays["lm_head.bias"].copy()

    change_arrays(source, tie)
    report = convert_reference(source, tmp_path / "ours")
    assert report["tied_tensors"] == ["lm_head.decoder.bias", "lm_head.decoder.weight"]
    change_arrays(source, lambda a: a["lm_head.decoder.weight"].__setitem__((3, 3), 9.0))
    with pytest.raises(CheckpointError, match=r"lm_head\.decoder\.weight"):
        convert_reference(source, tmp_path / "again")


def test_half_precision_is_widened(source: Path, tmp_path: Path) -> None:
    change_arrays(source, lambda a: a.update({n: x.astype(np.float16) for n, x in a.items()}))
    assert convert_reference(source, tmp_path / "ours")["stored_as"] == ["float16"]
    model = GraphMERT.from_pretrained(tmp_path / "ours")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    tokens = load_file(source / "model.safetensors")[TOKENS].astype(np.float32)
    np.testing.assert_array_equal(model.embed.token.weight.detach().numpy(), tokens)


# --- what is refused ------------------------------------------------------------------------


def change_json(path: Path, **changes: object) -> None:
    """Set keys; None removes one."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


def change_arrays(source: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    arrays = load_file(source / "model.safetensors")
    change(arrays)
    save_file(arrays, source / "model.safetensors")


def to_pickle(source: Path) -> Path:
    arrays = load_file(source / "model.safetensors")
    torch.save({n: torch.from_numpy(a) for n, a in arrays.items()}, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    return source / "pytorch_model.bin"


def refused(source: Path, out: Path) -> CheckpointError:
    """The error; nothing may be left behind."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(CheckpointError) as caught:
        convert_reference(source, out)
    assert sorted(out.parent.iterdir()) == before
    return caught.value


def test_missing_tensor_is_named(source: Path, tmp_path: Path) -> None:
    change_arrays(source, lambda a: a.pop(QUERY))
    error = refused(source, tmp_path / "ours")
    assert QUERY in str(error.where)
    assert (error.got, error.expected) == ("nothing", (16, 16))


def test_wrong_shape_is_named(source: Path, tmp_path: Path) -> None:
    change_arrays(source, lambda a: a.update({QUERY: a[QUERY][:8]}))
    error = refused(source, tmp_path / "ours")
    assert QUERY in str(error.where)
    assert (error.got, error.expected) == ((8, 16), (16, 16))


def test_unexpected_tensor_is_named(source: Path, tmp_path: Path) -> None:
    change_arrays(source, lambda a: a.update({"extra.weight": np.zeros(2, np.float32)}))
    assert refused(source, tmp_path / "ours").got == "extra.weight"


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.4, 0.999])
def test_truncated_weights(source: Path, tmp_path: Path, weights: str, share: float) -> None:
    path = source / weights
    if weights == "pytorch_model.bin":
        to_pickle(source)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert weights in str(refused(source, tmp_path / "ours").where)


class Harmful:
    """A pickle of it would run a command when read."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("made-by-a-pickle",)


def test_a_pickle_that_runs_code_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Harmful()}, to_pickle(source))
    refused(source, tmp_path / "ours")
    assert not (tmp_path / "made-by-a-pickle").exists()


@pytest.mark.parametrize("name", ["config.json", "relation_map.json", "model.safetensors"])
def test_missing_file_is_named(source: Path, tmp_path: Path, name: str) -> None:
    (source / name).unlink()
    assert name in str(refused(source, tmp_path / "ours"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1'], ids=["empty", "half", "list", "cut"])
@pytest.mark.parametrize("name", ["config.json", "relation_map.json"])
def test_damaged_json_is_named(source: Path, tmp_path: Path, name: str, text: str) -> None:
    (source / name).write_text(text)
    assert name in str(refused(source, tmp_path / "ours").where)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "bert"),
        ("model_type", "graphmert-core"),
        ("hidden_size", None),
        ("hidden_size", "16"),
        ("num_attention_heads", 3),
        ("num_hidden_layers", 0),
        ("max_nodes", 47),
        ("max_nodes", 12),
        ("pad_token_id", -1),
        ("pad_token_id", 37),
        ("_exp_mask_base", None),
        ("_exp_mask_base", 1.5),
        ("_exp_mask_base", 0),
        ("dropout", "0.1"),
        ("relation_emb_dropout", 2),
        ("span_upper_length", 0),
    ],
)
def test_bad_setting_is_named(source: Path, tmp_path: Path, key: str, value: object) -> None:
    change_json(source / "config.json", **{key: value})
    message = str(refused(source, tmp_path / "ours"))
    assert "config.json" in message
    assert ("hidden_size" if key == "num_attention_heads" else key) in message


@pytest.mark.parametrize("number", [0, 6, "1", 1.0, True], ids=repr)
def test_bad_relation_id_is_named(source: Path, tmp_path: Path, number: object) -> None:
    change_json(source / "relation_map.json", relation_1=number)
    assert str(refused(source, tmp_path / "ours").where).endswith("relation_1")


def test_a_shared_relation_id_is_named(source: Path, tmp_path: Path) -> None:
    change_json(source / "relation_map.json", relation_4=2)
    assert str(refused(source, tmp_path / "ours").where).endswith("relation_4")


def test_a_file_is_no_checkpoint(source: Path, tmp_path: Path) -> None:
    refused(source / "model.safetensors", tmp_path / "ours")
    refused(tmp_path / "nowhere", tmp_path / "ours")


def test_an_existing_output_is_kept(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    out.mkdir()
    convert_reference(source, out)  # an empty folder may be filled
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(ConfigError, match="ours"):
        convert_reference(source, out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        convert_reference(source, tmp_path / "file")


@pytest.mark.parametrize("kind", ["system", "writer"])
def test_a_full_disk_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from safetensors import SafetensorError

    def full(*_: object, **__: object) -> None:
        if kind == "writer":
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(GraphMERT, "save_pretrained", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CapabilityError, match="disk is full"):
        convert_reference(source, tmp_path / "ours")
    assert sorted(tmp_path.iterdir()) == before
