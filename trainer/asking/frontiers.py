"""How promising a model that thinks holds each node of a graph: the paper's implicit search tree (Figure 7).

After the thoughts of k steps it is made to speak; how likely its sentence is to begin with a node that k
steps lead to is what it gives that node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from trainer.data import tokenizer as vocabulary
from trainer.methods.base import Model
from trainer.methods.coconut import Coconut
from trainer.methods.decode import inference
from trainer.methods.thinking import read_rows

SAYS = " Every"
"""How a step begins whose node is not the one asked about."""


def probabilities(
    method: Coconut,
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    question: Sequence[int],
    named: Sequence[Sequence[str]],
) -> Iterator[Mapping[str, float]]:
    """How likely the next step is to begin with each of some nodes, after thoughts for one step, two, ….

    question: token ids with their EOS. named: the nodes, for each number of steps.
    """
    begin = vocabulary.encode(SAYS, tokenizer)
    rows: dict[tuple[int, ...], int] = {}  # with the number of thoughts in it that are fed back
    places: list[dict[str, tuple[tuple[int, ...], int]]] = []
    for steps, names in enumerate(named, start=1):
        prompt, fed_back = method.prompt(question, steps * method.per_step)
        own = {}
        for name in names:
            ids = vocabulary.encode(f"{SAYS} {name}", tokenizer)[len(begin) :]
            row = (*prompt, *begin, *ids)
            rows[row[:-1]] = fed_back
            own[name] = (row, len(ids))
        places.append(own)
    scores = _log_probabilities(model, rows, len(question) + 1, tokenizer.eos_token_id)
    for own in places:
        # All but its last token is in a row of its own, so that nodes of one token share theirs.
        yield {name: float(_of(scores[row[:-1]], row, count).exp()) for name, (row, count) in own.items()}


def _of(scores_TV: torch.Tensor, row: tuple[int, ...], count: int) -> torch.Tensor:
    """The log-probability of the last `count` tokens of a row."""
    places = torch.arange(len(row) - 1 - count, len(row) - 1)
    return scores_TV[places, torch.tensor(row[-count:])].sum()


def _log_probabilities(
    model: Model, rows: Mapping[tuple[int, ...], int], column: int, pad_id: int
) -> dict[tuple[int, ...], torch.Tensor]:
    """Of every token after each place of each row, T×V. The first thoughts stand in `column`."""
    width = max(map(len, rows))
    ids_BT = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=model.device)
    thoughts_B = torch.tensor(list(rows.values()), device=model.device)
    with inference(model):
        seen = read_rows(model, ids_BT, None, None, thoughts_B, column, int(thoughts_B.max()))
        logits_BTV = seen.logits_BTV
        if logits_BTV is None:
            logits_BTV = model.get_output_embeddings()(seen.hidden_BTD)
        scores_BTV = logits_BTV.float().log_softmax(-1).cpu()
    return dict(zip(rows, scores_BTV, strict=True))
