"""Make a small RoBERTa on code: the body of the reduced `codebert` runs.

    python scripts/make_small_roberta.py RUN.toml OUT --steps 300

Reads the index and the split of the run file, trains a byte-level BPE vocabulary and a masked
language model on the code of its training packages, and writes a checkpoint folder of the RoBERTa
family. Nothing of the held-out packages is seen.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import transformers

from graphmert.run.code import load_code
from graphmert.run.code.prepared import read_split, training_texts
from graphmert.tokens import Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--vocab-size", type=int, default=4000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = load_code(options.run)
    tables, split, _ = read_split(config)
    texts = training_texts(tables, split.parts["train"])
    tokenizer = Tokenizer.train_bytes(texts, vocab_size=options.vocab_size)
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    model = transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=options.width,
            num_hidden_layers=options.layers,
            num_attention_heads=4,
            intermediate_size=4 * options.width,
            max_position_embeddings=512 + 2,
            pad_token_id=tokenizer.pad_id,
            bos_token_id=tokenizer.cls_id,
            eos_token_id=tokenizer.sep_id,
            type_vocab_size=1,
        )
    )
    rng = np.random.default_rng(options.seed)
    chosen = [texts[i] for i in rng.permutation(len(texts))[: options.steps * options.batch_size]]
    ids = [e.ids[: options.max_tokens - 2] for e in tokenizer.encode_batch(chosen)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=options.steps)
    losses = []
    model.train()
    for step in range(options.steps):
        start = step * options.batch_size % len(ids)
        batch, labels = masked(ids[start : start + options.batch_size], tokenizer, rng)
        loss = model(
            input_ids=batch, attention_mask=(batch != tokenizer.pad_id).long(), labels=labels
        ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            print(f"{step + 1}/{options.steps}: {np.mean(losses[-50:]):.3f}", flush=True)
    model.save_pretrained(options.out, safe_serialization=True)
    tokenizer.save(options.out)
    record = {"steps": options.steps, "loss": [round(float(x), 4) for x in losses[::10]]}
    (options.out / "training.json").write_text(json.dumps(record) + "\n", encoding="utf-8")


def masked(
    rows: list[np.ndarray], tokenizer: Tokenizer, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad, mask 15 % of the tokens (80 % mask, 10 % random, 10 % kept), special tokens never."""
    longest = max(len(row) for row in rows) + 2
    batch = np.full((len(rows), longest), tokenizer.pad_id, dtype=np.int64)
    for i, row in enumerate(rows):
        batch[i, : len(row) + 2] = [tokenizer.cls_id, *row, tokenizer.sep_id]
    special = np.isin(batch, sorted(tokenizer.special_ids))
    asked = (rng.random(batch.shape) < 0.15) & ~special
    labels = np.where(asked, batch, -100)
    draw = rng.random(batch.shape)
    batch[asked & (draw < 0.8)] = tokenizer.mask_id
    random = asked & (draw >= 0.8) & (draw < 0.9)
    batch[random] = rng.choice(tokenizer.ordinary_ids, size=int(random.sum()))
    return torch.from_numpy(batch), torch.from_numpy(labels)


if __name__ == "__main__":
    main()
