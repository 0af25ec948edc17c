"""The figures that the paper of Coconut reports, as rows beside which ours can stand.

[H] Hao et al.: "Training Large Language Models to Reason in a Continuous Latent Space" (arXiv 2412.06769)

Accuracy is exact match; `tokens` are those generated, thoughts among them; `seconds` are for an example on an
A100 (appendix B). All of GPT-2 Small.
"""

from __future__ import annotations

from typing import Any

from trainer import presets
from trainer.analysis.published import GPT2, GSM8K, Row
from trainer.config import DataConfig, MethodConfig

PRONTOQA, PROSQA = "ProntoQA", "ProsQA"
COT, NO_COT, ICOT = "CoT", "no CoT", "iCoT"
PAUSE, PAUSE_AS_THOUGHT = "pause token", "pause as thought"
COCONUT, NO_CURRICULUM, NO_THOUGHT = "Coconut", "w/o curriculum", "w/o thought"

FIGURES = {
    # accuracy and tokens on GSM8K, ProntoQA and ProsQA
    COT: ((42.9, 25.0), (98.8, 92.5), (77.5, 49.4)),
    NO_COT: ((16.5, 2.2), (93.8, 3.0), (76.7, 8.2)),
    ICOT: ((30.0, 2.2), (99.8, 3.0), (98.2, 8.2)),
    PAUSE: ((16.4, 2.2), (77.7, 3.0), (75.9, 8.2)),
    COCONUT: ((34.1, 8.2), (99.8, 9.0), (97.0, 14.2)),
    NO_CURRICULUM: ((14.4, 8.2), (52.4, 9.0), (76.1, 14.2)),
    NO_THOUGHT: ((21.6, 2.3), (99.9, 3.0), (95.5, 8.2)),
    PAUSE_AS_THOUGHT: ((24.1, 2.2), (100.0, 3.0), (96.6, 8.2)),
}
SECONDS = {NO_COT: (0.03, 0.03, 0.08), COT: (0.26, 0.85, 0.47), COCONUT: (0.09, 0.11, 0.15)}


def thoughts(c: int) -> str:
    """What Figure 3 calls a row: Coconut with c thoughts a step."""
    return f"{COCONUT}, c = {c}"


OVERRIDES: dict[str, dict[str, Any]] = {
    COT: {"method.name": "explicit_cot"},
    NO_COT: {"method.name": "no_cot"},
    ICOT: {"method.name": "stepwise"},
    NO_CURRICULUM: {"method.curriculum": False},
    NO_THOUGHT: {"method.no_thought": True},
    PAUSE_AS_THOUGHT: {"method.name": "pause"},
    thoughts(0): {"method.no_thought": True},
    thoughts(1): {"method.thoughts_per_step": 1},
}
"""What makes a row of its preset; the others are presets as they stand."""
TASKS = {GSM8K: "gsm8k-coconut", PRONTOQA: "prontoqa", PROSQA: "prosqa"}
"""The tasks with our configurations of them."""


def usual(data: DataConfig) -> MethodConfig:
    """What thoughts are set to in our configuration of a task; of small graphs and few hops in the presets of
    those."""
    default = DataConfig()
    if data.task == "gsm8k":
        name = TASKS[GSM8K]
    elif data.task == "prosqa":
        name = "prosqa" if (data.nodes, data.nouns) == (default.nodes, default.nouns) else "prosqa-small"
    elif data.task == "prontoqa":
        name = "prontoqa" if data.hops == default.hops else "prontoqa-short"
    else:
        return MethodConfig()
    return presets.resolve(name).method


def _preset(task: str, method: str) -> str:
    if method == PAUSE:
        return f"{TASKS[task].removesuffix('-coconut')}-pause"
    return "gsm8k-coconut-cot" if (task, method) == (GSM8K, COT) else TASKS[task]


TABLE_1 = tuple(
    Row(
        task,
        GPT2,
        method,
        round(figures[place][0] / 100, 3),
        source="[H] Table 1" + (", appendix B" if method in SECONDS else ""),
        preset=_preset(task, method),
        tokens=figures[place][1],
        seconds=SECONDS[method][place] if method in SECONDS else None,
    )
    for place, task in enumerate(TASKS)
    for method, figures in FIGURES.items()
)


FIGURE_3 = (
    Row(GSM8K, GPT2, thoughts(0), 0.216, source="[H] Figure 3", words="w/o thought of Table 1",
        preset="gsm8k-coconut"),
    Row(GSM8K, GPT2, thoughts(1), None, source="[H] Figure 3",
        words="[H] Figure 3: drawn without a number, between the two", preset="gsm8k-coconut"),
    Row(GSM8K, GPT2, thoughts(2), 0.341, source="[H] Figure 3", words="Coconut of Table 1",
        preset="gsm8k-coconut"),
)  # fmt: skip
