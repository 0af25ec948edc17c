"""Linear layers whose weights are laid out once, as a CPU's matrix units take them, while a model answers.

Else oneDNN lays a weight out anew in each bfloat16 product, which for a few rows takes longer than the
product itself. The operators are those that torch's inductor uses for models whose weights do not change;
they have no public name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.pytorch_utils import Conv1D

from trainer.methods.base import Model


@contextmanager
def packed(model: Model) -> Iterator[None]:
    """Products in bfloat16 by packed weights. No weight may change meanwhile, and no gradient is taken."""
    curves = {mlp.c_fc: mlp.act for mlp in model.modules() if isinstance(mlp, GPT2MLP) and _fuses(mlp)}
    layers = [layer for layer in model.modules() if _packs(layer)]
    for layer in layers:
        layer.forward = _product(layer, curves.get(layer))
    for curve in curves.values():
        curve.forward = _as_it_is
    try:
        yield
    finally:
        for module in {*layers, *curves.values()}:
            del module.forward


def available() -> bool:
    """Whether this build of torch can, on this CPU."""
    operators = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(operators, "_linear_pointwise")
        and hasattr(operators, "_reorder_linear_weight")
        and bool(operators._is_mkldnn_bf16_supported())
    )


def _packs(layer: nn.Module) -> bool:
    """Not where something else stands in for its `forward`, or for its weight."""
    ours = type(layer) in (nn.Linear, Conv1D) and "forward" not in vars(layer)
    return ours and type(layer.weight) is nn.Parameter


def _fuses(mlp: GPT2MLP) -> bool:
    """Whether its GELU can be made by the product before it, while the numbers are at hand."""
    return _packs(mlp.c_fc) and type(mlp.act) is nn.GELU and "forward" not in vars(mlp.act)


def _as_it_is(input: Tensor) -> Tensor:
    return input


def _product(layer: nn.Module, curve: nn.GELU | None) -> Callable[[Tensor], Tensor]:
    """curve: what the sums go through."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    transposed = weight if isinstance(layer, nn.Linear) else weight.T  # Conv1D: (in, out)
    lowered = transposed.detach().to(torch.bfloat16).contiguous()
    laid_out = torch.ops.mkldnn._reorder_linear_weight(lowered, None)
    added = bias.detach().to(torch.bfloat16) if isinstance(bias, Tensor) else None
    after, kind = ("none", "") if curve is None else ("gelu", curve.approximate)

    def product(input: Tensor) -> Tensor:
        rows = input.to(torch.bfloat16)
        given: Tensor = torch.ops.mkldnn._linear_pointwise(rows, laid_out, added, after, [], kind)
        return given

    return product
