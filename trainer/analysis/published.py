"""The figures that the paper of ICoT-SI and its authors' logs report, each with its source.

[P] Deng, Choi, Shieber: "From Explicit CoT to Implicit CoT" (arXiv 2405.14838), its tables and text
[O] the logs of its official repository, github.com/da03/Internalize_CoT_Step_by_Step

Accuracy is exact match; speed is throughput at batch 1 relative to the no-CoT model of the same size.
None: not reported. `words`: what is reported beside the figures, or instead of them. `preset` names our
configuration of the row, where we have one.
"""

from __future__ import annotations

from typing import NamedTuple

GPT2, MEDIUM, PHI3, MISTRAL = "GPT-2 Small", "GPT-2 Medium", "Phi-3 3.8B", "Mistral 7B"
EXPLICIT, NO_COT, KD, SI = "explicit CoT", "no CoT", "ICoT-KD", "ICoT-SI"
GSM8K = "GSM8K"
LOGS = {"4×4": "1.000", "5×5": ".996", "7×7": ".945", "9×9": ".988"}
"""Accuracy of ICoT-SI in the official logs [O], which is more precise than the paper's two figures."""


class Dataset(NamedTuple):
    """A row of Table 1.

    train, valid, test: examples, as they are printed. The rest are GPT-2 tokens, medians: one number for
    all splits, or one for each. The answer's are with its ####.
    """

    task: str
    train: str
    valid: str
    test: str
    question: str
    cot: str
    answer: str
    source: str = "[P] Table 1"


class Row(NamedTuple):
    """A row of Table 2 or 3, or of what the text around them says; or of a table of another paper.

    tokens: generated, mean per example. seconds: per example, one at a time.
    """

    task: str
    model: str
    method: str
    accuracy: float | None = None
    speed: float | None = None
    source: str = ""
    words: str = ""
    preset: str = ""
    tokens: float | None = None
    seconds: float | None = None


DATASETS = (
    Dataset("4×4", "808k", "1k", "1k", "9", "46", "9"),
    Dataset("5×5", "808k", "1k", "1k", "11", "74", "11"),
    Dataset("7×7", "808k", "1k", "1k", "15", "148", "15"),
    Dataset("9×9", "808k", "1k", "1k", "19", "246", "19"),
    Dataset(GSM8K, "378k", "0.5k", "1.3k", "40 / 51 / 53", "19 / 21 / 24", "2 / 2 / 2"),
)


def _multiplication(
    model: str, method: str, *figures: tuple[float | None, float | None], preset: str = ""
) -> list[Row]:
    """A line of Table 2: accuracy and speed on 4×4, 5×5, 7×7 and 9×9, as far as they are reported."""
    return [
        Row(
            f"{k}×{k}",
            model,
            method,
            accuracy,
            speed,
            "[P] Table 2",
            f"[O] log {LOGS[f'{k}×{k}']}" if method == SI else "",
            preset and f"mult{k}x{k}",
        )
        for k, (accuracy, speed) in zip((4, 5, 7, 9), figures, strict=False)
    ]


TABLE_2 = (
    *_multiplication(GPT2, EXPLICIT, (1.0, 0.17), (1.0, 0.14), (1.0, 0.12), (1.0, 0.09), preset="mult"),
    *_multiplication(GPT2, NO_COT, (0.29, 1.0), (0.01, 1.0), (0.0, 1.0), (0.0, 1.0), preset="mult"),
    *_multiplication(GPT2, KD, (0.97, 0.67), (0.10, 0.71)),
    *_multiplication(GPT2, SI, (1.0, 1.02), (0.95, 1.0), (0.95, 1.0), (0.99, 1.0), preset="mult"),
    *_multiplication("MathGLM 100M", NO_COT, (0.80, 1.0), (0.56, 1.0)),
    *_multiplication("MathGLM 500M", NO_COT, (0.90, 1.0), (0.60, 1.0)),
    *_multiplication("MathGLM 2B", NO_COT, (0.95, 1.0), (0.90, 1.0)),
    *_multiplication("GPT-3.5, five-shot", EXPLICIT, (0.43, 0.10), (0.05, 0.07), (0.0, 0.15), (0.0, 0.11)),
    *_multiplication("GPT-3.5, five-shot", NO_COT, (0.02, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0)),
    *_multiplication("GPT-4, five-shot", EXPLICIT, (0.77, 0.14), (0.44, 0.14), (0.03, 0.09), (0.0, 0.07)),
    *_multiplication("GPT-4, five-shot", NO_COT, (0.04, 1.0), (0.0, 1.0), (0.0, 1.0), (0.0, 1.0)),
    Row("7×7", GPT2, f"{SI}, no smoothing", None, None, "[P] Figure 3",
        "[P] Figure 3: collapses near 50 removals, ends below the full method", "mult7x7-no-smoothing"),
    Row("7×7", GPT2, f"{SI}, no reset", None, None, "[P] Figure 3",
        "[P] Figure 3: collapses near 100 removals, ends below the full method", "mult7x7-no-reset"),
    Row("7×7", GPT2, f"{SI}, right side", None, None, "[P] Figure 3",
        "[P] Figure 3: ends below the full method", "mult7x7-right"),
    Row("7×7", GPT2, f"{SI}, Δ = 16", None, None, "[P] Figure 3",
        "[P] Figure 3: does not converge", "mult7x7-delta16"),
    Row("7×7", GPT2, f"{SI}, kept positions", None, None, "[P]",
        "[P]: steadier, similar accuracy", "mult7x7-keep-positions"),
    Row("9×9", GPT2, f"{SI}, tree CoT", 0.95, None, "[P]", "", "mult9x9-tree"),
    Row("11×11", GPT2, f"{SI}, tree CoT", None, None, "[P]", "[P]: fails", "mult11x11-tree"),
    Row("11×11", GPT2, f"{SI}, 320 removed", 0.739, None, "[O]",
        "[O] log, of 369; [P]: above .7 at about four times the speed of explicit CoT", "mult11x11-partial"),
)  # fmt: skip


def _gsm8k(model: str, preset: str, *accuracies: float | None) -> list[Row]:
    """A line of Table 3: explicit CoT, no CoT, ICoT-KD, ICoT-SI, as far as they are reported."""
    return [
        Row(GSM8K, model, method, accuracy, None, "[P] Table 3", preset="" if method == KD else preset)
        for method, accuracy in zip((EXPLICIT, NO_COT, KD, SI), accuracies, strict=False)
        if accuracy is not None
    ]


TABLE_3 = (
    *_gsm8k(GPT2, "gsm8k-gpt2", 0.41, 0.13, 0.20, 0.30),
    *_gsm8k(MEDIUM, "gsm8k-gpt2-medium", 0.44, 0.17, 0.22, 0.35),
    *_gsm8k(PHI3, "gsm8k-phi3", 0.74, 0.28, None, 0.31),
    *_gsm8k(MISTRAL, "gsm8k-mistral", 0.68, 0.38, None, 0.51),
    *_gsm8k("GPT-3.5", "", 0.62, 0.03),
    *_gsm8k("GPT-4", "", 0.91, 0.44),
)
