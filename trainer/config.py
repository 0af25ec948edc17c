"""The run's configuration: one tree of typed, validated, documented fields, and the one place for defaults.

Each field carries its meaning, unit and source in `description`; `live` marks those that the command
`set` may change while a run trains. `table()` lists them all for the documentation and for `presets`.

Raises `ConfigError`, which names every wrong field with its value and what is allowed, all at once.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.config import JsonDict

Positive = Annotated[int, Field(ge=1)]
LIVE: JsonDict = {"live": True}
BARE_POINT = re.compile(r"[+-]?(\d+\.|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)  # a number, but not to TOML

# Ways of saying one thing: giving one, in a preset or with `set`, takes the others back.
ALTERNATIVES: tuple[tuple[str, ...], ...] = (
    ("schedule.tokens_per_epoch", "schedule.steps_per_token", "schedule.epochs_per_stage"),
    ("schedule.pretrain_epochs", "schedule.pretrain_steps"),
)


TIMED = ("linear", "geometric", "gated", "adaptive")
GATED = ("gated", "adaptive")
PACES = {
    "schedule.tokens_per_epoch": TIMED,
    "schedule.steps_per_token": TIMED,
    "schedule.epochs_per_stage": TIMED,
    "schedule.steps": ("table",),
    "schedule.removed_share": ("geometric",),
    "schedule.ready": GATED,
    "schedule.probes": GATED,
    "schedule.stall": GATED,
    "schedule.longest": GATED,
    "schedule.most_at_once": ("adaptive",),
}
"""Which kinds of schedule a field is for."""


class ConfigError(ValueError):
    """What is wrong with a configuration, one sentence a line."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(Section):
    task: Literal["multiplication", "gsm8k", "prontoqa", "prosqa", "text"] = Field(
        "multiplication",
        description="what the model learns; text: lines question||CoT #### answer, or JSON, of your own",
    )
    digits: int = Field(4, ge=1, le=64, description="digits of the first factor, K")
    digits_b: int | None = Field(
        None, ge=1, le=64, description="digits of the second factor; the same as digits when not given"
    )
    cot: Literal["schoolbook", "tree"] = Field(
        "schoolbook",
        description="multiplication's CoT: partial products summed one by one, or in a binary tree",
    )
    hops: int = Field(5, ge=1, le=6, description="deductions of a ProntoQA example (Coconut: 5)")
    nodes: int = Field(
        28,
        ge=8,
        le=40,
        description="nodes of a ProsQA graph, before those without an edge go (found in the published files)",
    )
    nouns: int = Field(
        38,
        ge=8,
        le=38,
        description="different nouns for the nodes of ProsQA graphs (the published files: 38)",
    )
    train_file: str | None = Field(
        None,
        description="file of training examples; without one gsm8k comes from the Hugging Face hub, and "
        "prontoqa and prosqa are made",
    )
    valid_file: str | None = Field(
        None, description="file of validation examples; cut from the training file when not given"
    )
    test_file: str | None = Field(
        None, description="file of test examples; cut from the training file when not given"
    )
    train: Positive = Field(
        808_000, description="training examples (paper, Table 1); of a file at most so many"
    )
    valid: Positive = Field(
        1_000, description="validation examples (paper, Table 1); of a file at most so many"
    )
    test: Positive = Field(
        1_000, description="test examples, looked at only when the run has ended; of a file at most so many"
    )
    max_len_train: int | None = Field(
        None,
        ge=2,
        description="batches with a row of more tokens are left out of training (official code)",
    )

    @model_validator(mode="after")
    def _files_of_text(self) -> DataConfig:
        files = (self.train_file, self.valid_file, self.test_file)
        if self.task == "multiplication" and any(files):
            raise ValueError(
                "multiplication makes its own examples; files need a task of text, such as prosqa or text"
            )
        if self.task == "prosqa" and self.nouns < self.nodes - 2:
            raise ValueError(f"{self.nodes} nodes need {self.nodes - 2} nouns, and nouns = {self.nouns}")
        if self.task == "text" and self.train_file is None:
            raise ValueError('task = "text" needs train_file')
        if self.task != "text" and self.train_file is None and any(files):
            raise ValueError("valid_file and test_file need a train_file beside them")
        return self


class ModelConfig(Section):
    init: str = Field(
        "gpt2", min_length=1, description="scratch, a Hugging Face name, or a local folder with a model"
    )
    vocab: Literal["task", "full"] = Field(
        "full", description="its own few symbols, or the pretrained tokenizer's (the paper's objective)"
    )
    layers: Positive = Field(12, description="transformer blocks, for init = scratch")
    heads: Positive = Field(12, description="attention heads per block, for init = scratch")
    width: Positive = Field(768, description="size of the residual stream, for init = scratch")
    initializer_range: float = Field(
        0.02, gt=0, description="standard deviation of new weights, for init = scratch (GPT-2's: 0.02)"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout probability (GPT-2: 0.1 in three places)")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of weights and moments; the paper's large models have bfloat16"
    )
    lora_rank: int = Field(
        0,
        ge=0,
        description="rank of adapters (LoRA) that are trained in the place of the weights; 0: none, all is "
        "trained",
    )
    lora_alpha: int | None = Field(
        None, ge=1, description="what adapters are multiplied by, times their rank; none: twice the rank"
    )

    @model_validator(mode="after")
    def _whole_heads(self) -> ModelConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        if self.init == "scratch" and self.vocab == "full":
            raise ValueError('vocab "full" needs a pretrained tokenizer; init = "scratch" has vocab "task"')
        return self


TOKEN_FIELDS = (
    "side", "keep_positions", "move_positions", "remove_all_beyond", "stop_at", "fillers", "explicit_share"
)  # fmt: skip
"""What is said of single tokens of CoT."""
LATENT = ("coconut", "pause")
"""Methods that put something in the place of steps: thoughts, or pauses."""


class MethodConfig(Section):
    name: Literal["stepwise", "explicit_cot", "no_cot", "coconut", "pause"] = Field(
        "stepwise",
        description="how the model is taught; explicit_cot and no_cot are stepwise's two ends; coconut: "
        "continuous thoughts in the place of steps; pause: pause tokens there (Coconut, section 4)",
    )
    unit: Literal["token", "step"] = Field(
        "token", description="what stepwise removes at a time: a token of CoT, or a whole step of it"
    )
    side: Literal["left", "right"] = Field("left", description="end of the CoT that tokens are taken from")
    smoothing: float = Field(
        4.0,
        ge=0,
        allow_inf_nan=True,
        json_schema_extra=LIVE,
        description="λ of removal smoothing, P(offset) ∝ exp(−λ·offset); inf turns it off (paper, section 3)",
    )
    reset_optimizer: bool = Field(
        True, json_schema_extra=LIVE, description="a new optimiser at every removal (paper, section 3)"
    )
    reset_each_epoch: bool = Field(
        False,
        json_schema_extra=LIVE,
        description="a new optimiser at the beginning of every epoch as well (Coconut's code)",
    )
    keep_positions: bool = Field(
        False,
        description="position ids stay as if nothing had been removed, in training and decoding (paper)",
    )
    move_positions: bool = Field(
        False, description="learned positions move with the tokens at a removal on the left (ours)"
    )
    remove_all_beyond: int | None = Field(
        None, ge=1, description="at so many removals all that is left goes at once (official code)"
    )
    start_from: int = Field(0, ge=0, description="removals that the run begins with (official code)")
    stop_at: int | None = Field(
        None, ge=1, description="removals at which it ends, the rest of the CoT stays spoken (paper, partial)"
    )
    fillers: bool = Field(
        False, description="a filler token stands where each removed token was (future work of the paper)"
    )
    explicit_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of examples that keep all CoT, marked by a control token: one model answers both "
        "ways (future work of the paper)",
    )
    thoughts_per_step: int = Field(
        1, ge=0, description="for coconut and pause: thoughts in the place of each step (Coconut's c)"
    )
    max_latent_stage: int | None = Field(
        None,
        ge=1,
        description="for coconut and pause: most steps that thoughts stand for; then the others go at once "
        "(Coconut's code); as many as the longest CoT has when not given",
    )
    pad_latent_to_max: bool = Field(
        True,
        description="for coconut and pause: at the end every example has the thoughts of max_latent_stage, "
        "also one of fewer steps (Coconut's code); false: such a one is trained with fewer, and answered "
        "with all",
    )
    uniform_prob: float = Field(
        0.0,
        ge=0,
        le=1,
        json_schema_extra=LIVE,
        description="for coconut and pause: share of examples at a stage drawn at random (Coconut's code)",
    )
    curriculum: bool = Field(
        True,
        description="for coconut and pause: a step more at each stage; false: the last stage from the start",
    )
    no_thought: bool = Field(
        False, description="for coconut: the stages without anything in the place of steps (ablation)"
    )
    latent_end: Literal["fixed", "classifier"] = Field(
        "fixed",
        description="for coconut: as many thoughts as the stage has, or until a classifier on the thought, "
        "two rows of the head, says that it was the last (Coconut, section 3)",
    )

    @property
    def counted(self) -> Literal["token", "step"]:
        """What its stages count: tokens of CoT, or whole steps of it."""
        return "step" if self.name in LATENT else self.unit

    @model_validator(mode="after")
    def _possible_together(self) -> MethodConfig:
        if self.move_positions and (self.side == "right" or not self.reset_optimizer):
            raise ValueError(
                'move_positions, set here, needs side = "left" and reset_optimizer = true; without it: '
                "--set method.move_positions=false"
            )
        if self.move_positions and (self.keep_positions or self.fillers or self.explicit_share):
            raise ValueError(
                "move_positions, set here, goes with neither keep_positions, fillers nor explicit_share; "
                "without it: --set method.move_positions=false"
            )
        if self.fillers and (self.side == "right" or self.keep_positions):
            raise ValueError('fillers need side = "left", and keep every position as it is already')
        if self.stop_at is not None and self.remove_all_beyond is not None:
            raise ValueError("give either stop_at or remove_all_beyond")
        if self.stop_at is not None and self.start_from > self.stop_at:
            raise ValueError(f"start_from {self.start_from} is beyond stop_at {self.stop_at}")
        return self

    @model_validator(mode="after")
    def _of_this_method(self) -> MethodConfig:
        """What cannot be meant together. What another row of the same table needs may stand there, so that
        one override makes a row: thoughts_per_step beside name = explicit_cot."""
        latent, fields = self.name in LATENT, type(self).model_fields
        foreign: tuple[str, ...] = ()
        if latent or (self.name == "stepwise" and self.unit == "step"):
            foreign += TOKEN_FIELDS
        if self.name != "coconut":
            foreign += ("no_thought", "latent_end")
        if self.name == "stepwise":
            foreign += ("curriculum",)
        found = [name for name in foreign if getattr(self, name) != fields[name].default]
        if found:
            by_step = not latent and found[0] in TOKEN_FIELDS
            what = f'name = "{self.name}"' + (' with unit = "step"' if by_step else "")
            it = "it" if len(found) == 1 else "them"
            without = " ".join(f"--set method.{name}={shown(fields[name].default)}" for name in found)
            names = ", ".join(f"{name} = {shown(getattr(self, name))}" for name in found)
            raise ValueError(f"{what} has no {names}, set here; without {it}: {without}")
        if latent and self.thoughts_per_step == 0:
            raise ValueError(
                "thoughts_per_step = 0 leaves no thought; the stages without thoughts (the paper's w/o "
                'thought, c = 0) are name = "coconut", no_thought = true'
            )
        if self.name == "coconut" and self.no_thought and (self.latent_end != "fixed" or not self.curriculum):
            raise ValueError(
                "no_thought has no thought to end and no last stage of thoughts: without it latent_end and "
                "curriculum may be set; no CoT from the start is name = no_cot"
            )
        return self


class ScheduleConfig(Section):
    kind: Literal["linear", "table", "geometric", "gated", "adaptive"] = Field(
        "linear",
        description="what decides when the next tokens go: one after a fixed time, one after the times of a "
        "table, or a share of what is left after a fixed time (Log-ICoT); gated: one when the stage is "
        "learnt; adaptive: likewise, several where the last cost nothing (ours)",
    )
    tokens_per_epoch: float | None = Field(
        8.0, ge=1e-3, json_schema_extra=LIVE, description="Δ, CoT tokens removed per epoch (paper, Table 4)"
    )
    steps_per_token: int | None = Field(
        None, ge=1, json_schema_extra=LIVE, description="the same pace in steps; takes tokens_per_epoch back"
    )
    epochs_per_stage: float | None = Field(
        None,
        gt=0,
        json_schema_extra=LIVE,
        description="the same pace in epochs at a stage (Coconut's tables); takes tokens_per_epoch back",
    )
    steps: tuple[Positive, ...] | None = Field(
        None,
        min_length=1,
        strict=False,
        json_schema_extra=LIVE,
        description="for kind = table: steps at the first stage, the second, …; the last for all that follow",
    )
    removed_share: float = Field(
        0.5,
        gt=0,
        lt=1,
        json_schema_extra=LIVE,
        description="for kind = geometric: share of the remaining stages that goes at once",
    )
    ready: float = Field(
        0.95,
        gt=0,
        le=1,
        json_schema_extra=LIVE,
        description="for gated and adaptive: a stage is learnt when probes are back at this share of the "
        "best before it; at the first stage, of all",
    )
    probes: Positive = Field(
        3, json_schema_extra=LIVE, description="for gated and adaptive: probes whose mean counts"
    )
    stall: int | None = Field(
        8,
        ge=1,
        json_schema_extra=LIVE,
        description="for gated and adaptive: probes that bring nothing over as many before; then a stage "
        "is left though it is not learnt; none: it is not",
    )
    probe_every: Positive = Field(25, description="for gated and adaptive: steps between two probes")
    probe_examples: Positive = Field(
        200,
        description="for gated and adaptive: validation examples of a probe, given what is left of the CoT",
    )
    longest: float = Field(
        4.0,
        ge=1,
        json_schema_extra=LIVE,
        description="for gated and adaptive: longest time at a stage, in multiples of linear's; "
        "the next removal comes then anyway. The first stage takes linear's at most",
    )
    most_at_once: Positive = Field(
        8, json_schema_extra=LIVE, description="for adaptive: most stages that one removal takes"
    )
    pretrain_epochs: float = Field(0.0, ge=0, description="epochs of explicit CoT before the first removal")
    pretrain_steps: int | None = Field(
        None, ge=0, description="the same in steps; takes pretrain_epochs back"
    )

    @model_validator(mode="after")
    def _one_pace(self) -> ScheduleConfig:
        paces = (self.tokens_per_epoch, self.steps_per_token, self.epochs_per_stage)
        if sum(pace is not None for pace in paces) != 1:
            raise ValueError("give one of tokens_per_epoch, steps_per_token and epochs_per_stage")
        if (self.kind == "table") != (self.steps is not None):
            raise ValueError(
                'kind = "table" needs steps, the steps at each stage, and only that kind has them'
            )
        return self


class OptimConfig(Section):
    lr: float = Field(5e-5, gt=0, json_schema_extra=LIVE, description="learning rate of AdamW, constant")
    batch: Positive = Field(32, description="examples per optimiser step")
    accumulate: Positive = Field(
        1, description="parts that a batch is computed in, one after the other, to fit into memory"
    )
    weight_decay: float = Field(0.01, ge=0, json_schema_extra=LIVE, description="AdamW's (torch's default)")
    warmup: int = Field(
        0, ge=0, json_schema_extra=LIVE, description="steps of linear warm-up after each new optimiser (ours)"
    )
    clip: float = Field(
        1.0, gt=0, allow_inf_nan=True, json_schema_extra=LIVE, description="largest gradient norm; inf: any"
    )
    moments: Literal["full", "8bit"] = Field(
        "full",
        description="AdamW's: of model.dtype, or in 8 bits by bitsandbytes, those of embeddings in fp32",
    )

    @model_validator(mode="after")
    def _whole_parts(self) -> OptimConfig:
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} must be a multiple of accumulate {self.accumulate}")
        return self


class ComputeConfig(Section):
    path: Literal["auto", "eager", "compiled", "graphs"] = Field(
        "auto",
        description="how a step is run; auto: eager on a CPU, on a GPU what proves fastest at the start; "
        "graphs: on a GPU only",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of the matrix products of training; auto: bfloat16 where the device has units for it "
        "and the model is wide enough to gain by them, and where the weights are. "
        "Weights and moments have model.dtype; evaluation and chat multiply as training does",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1_024,
        json_schema_extra=LIVE,
        description="CPU threads; none: $OMP_NUM_THREADS, else what proves fastest at the first start; when "
        "resumed a run keeps to its number until it is set",
    )
    parts: Positive = Field(
        1,
        description="parts that a batch is computed in to fit into memory, the mathematics staying the same; "
        "when it does not fit there are more",
    )

    activation_checkpointing: bool = Field(
        False,
        description="each block keeps only what comes in, and computes the rest again in the backward pass: "
        "much less memory, about a third more time",
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="with several GPUs: ddp, each has the whole model and adds up gradients; fsdp, weights, "
        "gradients and moments are spread over them (FSDP2)",
    )
    hang_seconds: float = Field(
        300.0,
        gt=0,
        description="with several GPUs: a rank that is stuck for so long while others wait ends the run",
    )


class EvalConfig(Section):
    every: Positive = Field(500, json_schema_extra=LIVE, description="steps between evaluations")
    examples: Positive = Field(
        1_000, json_schema_extra=LIVE, description="validation examples per evaluation, at most"
    )


class LogConfig(Section):
    every: Positive = Field(10, json_schema_extra=LIVE, description="steps between two metrics events")


class SaveConfig(Section):
    minutes: float = Field(
        1.0, gt=0, json_schema_extra=LIVE, description="longest time between two checkpoints, in minutes"
    )
    keep: Positive = Field(3, json_schema_extra=LIVE, description="last checkpoints kept")
    stages: Positive = Field(
        8, json_schema_extra=LIVE, description="entries of the last stages kept, to roll back to"
    )
    every_stage: Positive = Field(
        8, json_schema_extra=LIVE, description="of the older stages, every how manyth entry is kept"
    )
    disk_gb: float | None = Field(
        None,
        gt=0,
        json_schema_extra=LIVE,
        description="most that the checkpoints may take, in GB (10⁹ bytes); of more the oldest go, but never "
        "the newest, the best, what training would go on from, or those you saved",
    )


class WatchConfig(Section):
    mode: Literal["off", "suggest", "auto"] = Field(
        "suggest",
        json_schema_extra=LIVE,
        description="suggest raises an alarm that names the remedy; auto holds the schedule in a "
        "dip, waits, and rolls back by itself (docs/watch.md)",
    )
    patience: Positive = Field(
        6, json_schema_extra=LIVE, description="evaluations a dip may last before the alarm"
    )
    recovered: float = Field(
        0.5,
        gt=0,
        le=1,
        json_schema_extra=LIVE,
        description="a dip is over when accuracy is back at this share of what it was before",
    )
    rollbacks: int = Field(
        4, ge=0, json_schema_extra=LIVE, description="roll backs that auto does in a run's life, at most"
    )
    skipped: Positive = Field(
        20,
        json_schema_extra=LIVE,
        description="updates left out because loss or gradient was not finite, before training pauses; "
        "an interval of log.every without any begins the count anew",
    )
    notify: str = Field(
        "",
        json_schema_extra=LIVE,
        description="a shell command to run on an alarm; its text is in $STEPWISE_ALARM",
    )


class StopConfig(Section):
    steps: int | None = Field(
        None, ge=1, json_schema_extra=LIVE, description="steps after which the run ends"
    )
    epochs: float = Field(
        200.0, gt=0, allow_inf_nan=True, json_schema_extra=LIVE, description="epochs after which it ends"
    )
    hours: float = Field(
        24.0,
        gt=0,
        allow_inf_nan=True,
        json_schema_extra=LIVE,
        description="hours of training after which it ends",
    )
    accuracy: float | None = Field(
        None,
        gt=0,
        le=1,
        json_schema_extra=LIVE,
        description="ends early once all CoT is gone and validation accuracy has held this for `patience`",
    )
    patience: Positive = Field(3, json_schema_extra=LIVE, description="evaluations that must hold `accuracy`")


class Config(Section):
    """Everything that decides what a run computes."""

    title: str = Field("", description="one line for people")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="of data split, order, offsets and weights")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    gpus: Positive = Field(
        1,
        description="processes that train the run together, each on its own GPU (device = cpu: on the CPU)",
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    method: MethodConfig = MethodConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    optim: OptimConfig = OptimConfig()
    compute: ComputeConfig = ComputeConfig()
    eval: EvalConfig = EvalConfig()
    log: LogConfig = LogConfig()
    save: SaveConfig = SaveConfig()
    watch: WatchConfig = WatchConfig()
    stop: StopConfig = StopConfig()

    @model_validator(mode="after")
    def _rows_for_all(self) -> Config:
        rows = self.optim.batch // self.optim.accumulate
        if self.gpus > rows:
            raise ValueError(f"gpus = {self.gpus}: only {rows} examples are computed at once (optim.batch)")
        if self.compute.parallel == "fsdp" and self.method.move_positions:
            raise ValueError(
                'compute.parallel = "fsdp" spreads the table that method.move_positions moves; without it: '
                "--set method.move_positions=false"
            )
        if self.compute.parallel == "fsdp" and self.model.lora_rank:
            raise ValueError(
                f'compute.parallel = "fsdp" spreads weights, and model.lora_rank = {self.model.lora_rank} '
                "trains adapters beside a whole model on each GPU: --set compute.parallel=ddp, or --set "
                "model.lora_rank=0"
            )
        if self.compute.parallel == "fsdp" and self.optim.moments != "full":
            raise ValueError(
                'compute.parallel = "fsdp" spreads moments, and those in 8 bits are of whole weights: --set '
                "compute.parallel=ddp, or --set optim.moments=full"
            )
        if self.compute.parallel == "fsdp" and self.compute.path in ("compiled", "graphs"):
            raise ValueError(
                f'compute.parallel = "fsdp" computes eagerly, not compute.path = {self.compute.path}'
            )
        return self

    @model_validator(mode="after")
    def _products_of_weights(self) -> Config:
        if self.model.dtype == "bfloat16" and self.compute.precision == "float32":
            raise ValueError(
                'compute.precision = "float32": weights of bfloat16 (model.dtype) are multiplied in '
                "bfloat16: --set model.dtype=float32, or --set compute.precision=auto"
            )
        return self


class FieldRow(NamedTuple):
    """One line of the table of all fields. key: dotted. allowed: in words."""

    key: str
    default: Any
    allowed: str
    live: bool
    description: str


def table() -> list[FieldRow]:
    """All fields with defaults, allowed values and meaning, in the order of the file."""
    return list(_rows(Config, ""))


def _rows(section: type[BaseModel], prefix: str) -> Iterator[FieldRow]:
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _rows(info.annotation, f"{prefix}{name}.")
        else:
            extra = info.json_schema_extra
            live = isinstance(extra, dict) and bool(extra.get("live"))
            yield FieldRow(prefix + name, info.default, _allowed(info), live, info.description or "")


def _allowed(info: Any) -> str:
    """The type and bounds of a field in words: "whole number ≥ 1, or none"."""
    annotation, bounds, optional = info.annotation, list(info.metadata), False
    options = get_args(annotation)
    if type(None) in options:
        optional = True
        annotation = next(o for o in options if o is not type(None))
        options = get_args(annotation)
    if options and all(isinstance(o, str) for o in options):
        text = " | ".join(options)
    else:
        several = get_origin(annotation) is tuple
        kind = get_args(options[0])[0] if several else annotation
        text = {int: "whole number", float: "number", bool: "true | false", str: "text"}[kind]
        if several:
            return f"list of {text}s" + (", or none" if optional else "")
        for sign, attribute in (("≥", "ge"), (">", "gt"), ("≤", "le"), ("<", "lt")):
            for bound in bounds:
                limit = getattr(bound, attribute, None)
                if limit is not None:
                    text += f" {sign} {limit}"
    return text + (", or none" if optional else "")


def parse_value(text: str) -> Any:
    """A value as `--set` and `set` take it: as TOML has it, or .5; bare words are strings, none is None."""
    text = text.strip()
    if BARE_POINT.fullmatch(text):
        return float(text)
    if text.lower() in ("none", "null"):
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # not TOML, or a number or a nesting that Python does not take
        return text


def parse_assignment(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` of `--set`. Raises `ConfigError` when there is no `=`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: KEY=VALUE is expected, for example --set optim.lr=1e-4")
    return key.strip(), parse_value(value)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the nested tables of `over` on top; alternatives given in `over` replace each other."""
    result = _deep(base, over)
    for ways in ALTERNATIVES:
        if any(_get(over, way) is not None for way in ways):
            for way in ways:
                if _get(over, way) is None:
                    _drop(result, way)
    return result


def shown(value: Any) -> str:
    """A value of the configuration as `--set` takes it."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def nested(assignments: Mapping[str, Any]) -> dict[str, Any]:
    """{"optim.lr": 1} → {"optim": {"lr": 1}}."""
    result: dict[str, Any] = {}
    for key, value in assignments.items():
        *path, last = key.split(".")
        table_ = result
        for part in path:
            inner = table_.setdefault(part, {})
            if not isinstance(inner, dict):
                inner = table_[part] = {}
            table_ = inner
        table_[last] = value
    return result


def build(document: Mapping[str, Any]) -> Config:
    """The validated configuration of nested tables. Raises `ConfigError` with every problem at once."""
    try:
        return Config.model_validate(_with_alternatives(document))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e) for e in error.errors())) from None


def changed(config: Config, key: str, value: Any) -> Config:
    """`config` with one live field changed.

    Raises `ConfigError` for an unknown key, one that cannot change while training, or a bad value.
    """
    live = {row.key: row for row in table() if row.live}
    if key not in live:
        known = [row.key for row in table()]
        if key in known:
            raise ConfigError(f"{key} cannot change while a run trains; these can: {', '.join(live)}")
        raise ConfigError(_unknown(key, list(live)))
    kind = config.schedule.kind
    if key in PACES and kind not in PACES[key]:
        raise ConfigError(f'{key} has no effect with schedule.kind = "{kind}"; {_pace_of(kind)} has')
    if key == "compute.threads" and value is None:
        raise ConfigError(f"{key} = none: a run that trains keeps to its number until it is given another")
    return build(merge(config.model_dump(), nested({key: value})))


def _pace_of(kind: str) -> str:
    return next(key for key, kinds in PACES.items() if kind in kinds)


def get(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def load(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `ConfigError` when it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors put a mark before it
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None


def dumps(config: Config) -> str:
    """The configuration as TOML; running it again reproduces the run. Fields that are None are left out."""
    return tomlkit.dumps(config.model_dump(exclude_none=True))


def _with_alternatives(document: Mapping[str, Any]) -> dict[str, Any]:
    """Where only another way than the first is given, the first's default must not stand beside it."""
    result = _deep({}, document)
    _, *others = ALTERNATIVES[0]
    if any(_get(result, way) is not None for way in others):
        result["schedule"].setdefault("tokens_per_epoch", None)
    return result


def _deep(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = {k: _deep(v, {}) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in over.items():
        inner = result.get(key)
        if isinstance(value, Mapping):
            result[key] = _deep(inner if isinstance(inner, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def _get(document: Mapping[str, Any], key: str) -> Any:
    value: Any = document
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _drop(document: dict[str, Any], key: str) -> None:
    *path, last = key.split(".")
    for part in path:
        document = document.get(part, {})
    document.pop(last, None)


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    sections = dict.fromkeys(k.split(".")[0] for k in known)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are those of {', '.join(sections)}"
    return f"{key}: there is no such field; {hint}"


def _explain(error: Any) -> str:
    """One pydantic error as a sentence that names the field, the value and what is allowed."""
    key = ".".join(part for part in error["loc"] if isinstance(part, str))
    rows = {row.key: row for row in table()}
    if error["type"] == "extra_forbidden":
        return _unknown(key, list(rows))
    if key in rows:
        row = rows[key]
        if row.allowed == "text":
            return f"{key} = {error['input']!r}: {row.description} is allowed"
        return f"{key} = {error['input']!r}: {row.allowed} is allowed ({row.description})"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}" if key else str(error["ctx"]["error"])
    return f"{key} = {error['input']!r}: {error['msg']}"
