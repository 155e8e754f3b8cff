"""Cross-entropy over vocabulary-sized rows, which are widened a few at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from graphmert.objectives import cross_entropy


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_many_parts_equal_one(dtype: torch.dtype) -> None:
    """Value and gradient equal torch's on float copies; 41 rows need several parts."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(41, 30_000, generator=generator)).to(dtype).requires_grad_()
    label_P = torch.randint(30_000, (41,), generator=generator)
    label_P[[0, 17, 40]] = -100
    wide = logits.detach().to(torch.float64).requires_grad_()
    total, count = cross_entropy(logits, label_P)
    wanted = F.cross_entropy(wide, label_P, ignore_index=-100, reduction="sum")
    (total / count).backward()
    (wanted / 38).backward()
    assert float(count) == 38
    assert float(total.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    tolerance = {torch.float64: 1e-15, torch.float32: 1e-8, torch.bfloat16: 1e-4}[dtype]
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(logits.grad.double(), wide.grad, atol=tolerance, rtol=1e-2)
    assert (logits.grad[17] == 0).all()
