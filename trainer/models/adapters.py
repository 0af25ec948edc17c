"""Low-rank adapters (LoRA, arXiv 2106.09685) by `peft`, beside linear layers that stay as they are.

All linear layers of the blocks have one, as QLoRA found to be needed (arXiv 2305.14314, section 4), the head
has none. The model keeps its class, so whatever trains, asks or reads it need know of nothing.

A checkpoint's `model/` has the adapters within its weights (`merged`), and loads anywhere. Going on from that
would not be exact: a sum rounds, and does not tell its summands. So the run's folder holds the base once
(`checkpoint.write_base`), and each checkpoint what is trained (`trained`) apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainer import hub
from trainer.config import Config
from trainer.methods import tokens
from trainer.methods.base import Model

NAME = "default"
"""What `peft` calls the one adapter of a layer."""
BASE = "base_layer."
"""What it puts into the names of the weights beside which adapters are."""


def put_in(model: Model, config: Config) -> str:
    """Let adapters of `model.lora_rank` be trained in the place of the weights; a sentence that says so.

    Trained whole are tables with rows that nobody has trained: embeddings and head of a model from scratch
    or with tokens of the method's own; and GPT-2's learned positions, since a removal moves what stands at
    them, and they may have been lengthened. Adapters are fp32, whatever the base is. New ones are drawn from
    torch's global generator, and change nothing at first. Raises `ValueError` where there is no `peft`.
    """
    rank = config.model.lora_rank
    try:
        with hub.no_kernels():  # it imports bitsandbytes where there is one
            import peft
    except ImportError:
        raise ValueError(
            f"model.lora_rank = {rank} needs peft: pip install 'stepwise-tui[lora]'; without adapters: --set "
            "model.lora_rank=0"
        ) from None
    made = peft.LoraConfig(
        r=rank,
        lora_alpha=config.model.lora_alpha or 2 * rank,
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    peft.inject_adapter_in_model(made, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    for table in _trained_whole(model, config):
        table.requires_grad_(True)
    some = sum(parameter.numel() for parameter in trained(model).values())
    every = sum(parameter.numel() for parameter in model.parameters())
    return f"model.lora_rank = {rank}: {some:,} of {every:,} parameters are trained"


def trained(model: Model) -> dict[str, nn.Parameter]:
    """What is trained of a model with adapters, by name; nothing of one without."""
    if not _layers(model):
        return {}
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def merged(model: Model) -> Iterator[tuple[str, Tensor]]:
    """The model's state with the adapters within, by the names that it has without them.

    One tensor after the other, since a second model may not fit beside the first.
    """
    layers = _layers(model)
    for name, tensor in model.state_dict().items():
        place, found, rest = name.partition(BASE)
        if found and rest == "weight":
            with torch.no_grad():
                tensor = (tensor.float() + layers[place].get_delta_weight(NAME).float()).to(tensor.dtype)
        if ".lora_" not in name:
            yield place + rest, tensor


def _layers(model: Model) -> dict[str, Any]:
    """The layers that have an adapter, by what their weights' names begin with."""
    return {f"{name}.": module for name, module in model.named_modules() if hasattr(module, "base_layer")}


def _trained_whole(model: Model, config: Config) -> Iterator[nn.Module]:
    if config.model.init == "scratch" or tokens.added(config.method):
        yield model.get_input_embeddings()
        yield model.get_output_embeddings()
    if hasattr(model.base_model, "wpe"):
        yield model.base_model.wpe
