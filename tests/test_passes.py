"""Whatever way a step is computed, it computes the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, MistralConfig

from tests import small_pretrained
from tests.driven import FOREVER, Driven
from tests.tiny import tiny_config
from trainer.computing.choosing import Trial, _fastest, choose, precision
from trainer.computing.compute import Compute
from trainer.computing.passes import Passes
from trainer.computing.world import World
from trainer.config import ComputeConfig
from trainer.events import Event, Notice, RunFinished
from trainer.inbox import Inbox
from trainer.methods import cross_entropy
from trainer.methods.base import Batch, Losses
from trainer.methods.cross_entropy import IGNORED, linear_cross_entropy, plain_head
from trainer.methods.stepwise import Stepwise
from trainer.models.attention import NAME
from trainer.models.dropout import Dropout, drop
from trainer.parts import Parts, assemble
from trainer.run import Run
from trainer.saving import checkpoint
from trainer.saving.checkpoint import TrainState
from trainer.saving.past import Past
from trainer.training import Journal, Training


@pytest.fixture(scope="module")
def parts() -> Parts:
    return assemble(tiny_config(model__dropout=0.0, data__digits=3, data__train=200))


def gradients(passes: Passes, parts: Parts, batch: Batch) -> tuple[Losses, torch.Tensor]:
    passes.clear()
    losses = passes(batch, 1.0)
    gradient = torch.cat([p.grad.flatten() for p in parts.model.parameters()])
    passes.clear()
    return losses, gradient


def batch_of(parts: Parts, rows: int = 12, scheduled: int = 3) -> Batch:
    return parts.method.rows(parts.splits["train"][:rows], scheduled, torch.Generator().manual_seed(1))


# The loss ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(2, 60), st.integers(1, 45), st.randoms())
def test_the_loss_in_slices_is_the_loss(rows: int, size: int, symbols: int, held: int, random: Any) -> None:
    """Value and gradients, however many rows' logits exist at once, and whichever labels count."""
    torch.manual_seed(random.randrange(2**31))
    hidden = torch.randn(rows, size, dtype=torch.double, requires_grad=True)
    weight = torch.randn(symbols, size, dtype=torch.double, requires_grad=True)
    labels = torch.tensor([random.choice([IGNORED, random.randrange(symbols)]) for _ in range(rows)])
    with (
        patch.dict(cross_entropy.LEAST_ROWS, cpu=held),
        patch.object(cross_entropy, "ROWS_PER_WIDTH", 0.0),
    ):
        total, losses = linear_cross_entropy(hidden, weight, labels)
        (0.3 * total).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    got = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    wanted = F.cross_entropy(hidden @ weight.t(), labels, ignore_index=IGNORED, reduction="none")
    (0.3 * wanted.sum()).backward()
    assert torch.allclose(losses, wanted.float(), atol=1e-5)
    assert total.item() == pytest.approx(wanted.sum().item(), abs=1e-4)
    assert torch.allclose(got[0], hidden.grad, atol=1e-5)
    assert torch.allclose(got[1], weight.grad, atol=1e-5)


def test_a_head_that_does_more_than_multiply_is_left_to_the_model() -> None:
    sizes: dict[str, Any] = {
        "vocab_size": 30, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8,
        "num_attention_heads": 2, "num_key_value_heads": 1,
    }  # fmt: skip
    capped = AutoModelForCausalLM.from_config(Gemma2Config(**sizes, final_logit_softcapping=0.1))
    plain = AutoModelForCausalLM.from_config(MistralConfig(**sizes)).train()
    assert plain_head(capped) is None
    assert plain_head(plain) is plain.lm_head.weight
    assert plain.training


def test_a_head_first_seen_with_ruined_weights_is_not_judged_by_them() -> None:
    """As when a run is taken up at a checkpoint that has them, and then rolled back."""
    model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2))
    sound = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(torch.nan)
    assert plain_head(model) is None
    model.load_state_dict(sound)
    assert plain_head(model) is model.lm_head.weight


# Dropout and attention ---------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([0.02, 0.1, 0.25, 0.5, 0.9]), st.integers(0, 2**31))
def test_dropout_drops_its_share_and_keeps_the_mean(p: float, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.ones(400, 301, requires_grad=True)
    y = drop(x, p)
    kept = (y != 0).float().mean().item()
    assert kept == pytest.approx(1 - p, abs=0.006)
    assert y.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)
    assert len(y.unique()) <= 2
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    # Neighbours, which share a draw, are dropped independently of one another.
    both = ((y[:, 1:] == 0) & (y[:, :-1] == 0)).float().mean().item()
    assert both == pytest.approx(p * p, abs=0.01)
    torch.manual_seed(seed)
    assert torch.equal(drop(x, p), y)


def test_a_model_drops_by_ours_in_training_only_and_its_weights_keep_their_names() -> None:
    config = tiny_config()
    parts = assemble(config)
    replaced = [m for m in parts.model.modules() if isinstance(m, torch.nn.Dropout)]
    assert replaced
    assert {type(m) for m in replaced} == {Dropout}
    ids = torch.randint(17, (2, 9))
    parts.model.eval()
    assert torch.equal(parts.model(ids).logits, parts.model(ids).logits)
    parts.model.train()
    assert not torch.equal(parts.model(ids).logits, parts.model(ids).logits)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral"])
@pytest.mark.parametrize("lowered", [False, True])
def test_our_attention_is_the_models_own(kind: str, lowered: bool, tmp_path: Path) -> None:
    """Written out (dropout so small that it drops nothing) and as SDPA has it; grouped heads; a window."""
    if kind == "gpt2":
        path = small_pretrained.gpt2(tmp_path / kind, positions=64)
    else:
        path = small_pretrained.llama(tmp_path / kind, 64, bos=False)
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="sdpa")
    if kind == "mistral":
        sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 4}
        model = AutoModelForCausalLM.from_config(MistralConfig(**sizes, **heads), attn_implementation="sdpa")
    ids = torch.randint(10, (3, 11))
    for name in ("attention_dropout", "attn_pdrop"):
        if hasattr(model.config, name):
            setattr(model.config, name, 0.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
        expected = model.train()(ids, use_cache=False).logits
        model.set_attn_implementation(NAME)
        got = model(ids, use_cache=False).logits
        for module in model.modules():
            if isinstance(getattr(module, "attention_dropout", None), float):
                module.attention_dropout = 1e-9
        written_out = model(ids, use_cache=False).logits
    bound = 0.05 if lowered else 1e-5
    assert torch.allclose(got, expected, atol=bound)
    assert torch.allclose(written_out, expected, atol=bound)


# Ways to compute ---------------------------------------------------------------------------------------


def test_a_batch_in_parts_is_the_same_batch(parts: Parts) -> None:
    batch = batch_of(parts)
    losses, gradient = gradients(Passes(parts.method, parts.model, Compute()), parts, batch)
    for count in (2, 5, 12):
        others, other = gradients(Passes(parts.method, parts.model, Compute(parts=count)), parts, batch)
        assert torch.allclose(gradient, other, atol=1e-6)
        assert torch.allclose(torch.stack(losses).float(), torch.stack(others).float(), rtol=1e-5)


def test_two_ranks_compute_unequal_shares_in_equally_many_passes(parts: Parts) -> None:
    """Two rows and three, asked for in three parts: each pass of one rank waits for the other's."""
    batch, two = batch_of(parts, rows=5), World(size=2)
    _, gradient = gradients(Passes(parts.method, parts.model, Compute()), parts, batch)
    labels, counts = (batch.labels_BL != IGNORED).sum(), []
    passes = Passes(parts.method, parts.model, Compute(parts=3))
    for rank in (0, 1):
        share = batch.share(replace(two, rank=rank).share(5))
        with patch.object(parts.method, "loss", wraps=parts.method.loss) as loss:
            passes(share, 1.0, labels, 5 // 2)
        counts.append(loss.call_count)
    assert counts == [2, 2]
    other = torch.cat([p.grad.flatten() for p in parts.model.parameters()])
    passes.clear()
    assert torch.allclose(gradient, other, atol=1e-6)


def test_bfloat16_is_close_and_leaves_weights_and_gradients_in_float32(parts: Parts) -> None:
    batch = batch_of(parts)
    losses, gradient = gradients(Passes(parts.method, parts.model, Compute()), parts, batch)
    lowered = Passes(parts.method, parts.model, Compute(precision="bfloat16"))
    others, other = gradients(lowered, parts, batch)
    assert losses.mean.item() == pytest.approx(others.mean.item(), rel=0.01)
    assert torch.nn.functional.cosine_similarity(gradient, other, dim=0).item() > 0.999
    assert not torch.equal(gradient, other)
    assert {p.dtype for p in parts.model.parameters()} == {torch.float32}


@pytest.mark.slow
def test_compiled_is_the_same_at_every_stage_and_not_compiled_anew_at_each(parts: Parts) -> None:
    compiled = Passes(parts.method, parts.model, Compute("compiled"))
    frames = torch._dynamo.utils.counters["frames"]
    for scheduled in (0, 4, 9, 14, 20, 26):
        batch = batch_of(parts, scheduled=scheduled)
        _, gradient = gradients(Passes(parts.method, parts.model, Compute()), parts, batch)
        _, other = gradients(compiled, parts, batch)
        assert torch.allclose(gradient, other, atol=1e-5)
        if scheduled == 4:
            compilations = dict(frames)
    assert dict(frames) == compilations
    assert frames["ok"] == frames["total"]


@pytest.mark.parametrize("environment", [None, "", "0", "abc"])
def test_the_choice_keeps_to_what_was_asked(
    environment: str | None, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment is not None:  # which says nothing
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    batch, cpu = batch_of(parts), torch.device("cpu")
    before = [p.detach().clone() for p in parts.model.parameters()]
    asked = ComputeConfig(path="eager", precision="bfloat16", threads=3, parts=2)
    compute, reason = choose(asked, cpu, parts.method, parts.model, batch)
    assert compute == Compute("eager", "bfloat16", 3, 2)
    assert "bfloat16, eager, 3 CPU threads, batches in 2 parts; bfloat16 by compute.precision, " in reason
    assert reason.endswith("threads by compute.threads")
    asked = ComputeConfig(threads=1, parts=100)
    assert choose(asked, cpu, parts.method, parts.model, batch)[0].parts == len(batch.length_B)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        compute, reason = choose(ComputeConfig(), cpu, parts.method, parts.model, batch)
    finally:
        torch.set_num_threads(threads)
    assert compute.threads in (1, 2)
    assert "tried: eager with 2" in reason
    assert reason.endswith("; float32 since a width of 16 is less than 128")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert choose(ComputeConfig(), cpu, parts.method, parts.model, batch)[1].endswith("by OMP_NUM_THREADS")
    assert all(p.grad is None for p in parts.model.parameters())
    assert all(torch.equal(p, q) for p, q in zip(parts.model.parameters(), before, strict=True))


@pytest.mark.parametrize(("units", "width", "expected"), [
    ("_is_amx_tile_supported", 128, "bfloat16"),
    ("_is_avx512_bf16_supported", 128, "bfloat16"),
    ("_is_avx512_bf16_supported", 64, "float32"),  # too narrow to gain on every such CPU
    (None, 768, "float32"),
    (None, 128, "float32"),
])  # fmt: skip
def test_a_cpu_multiplies_in_bfloat16_where_it_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, units: str | None, width: int, expected: str
) -> None:
    for kind in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, kind, partial(bool, kind == units))
    chosen, why = precision(torch.device("cpu"), width)
    assert chosen == expected and why.startswith(f"{chosen} since ")
    assert ("less than 128" in why) == (width < 128), (
        "a wider model would gain nothing where there are no units"
    )


def test_what_computes_something_else_or_fails_is_not_taken() -> None:
    """Whatever a compiler or a driver does: the run begins, and says so."""
    eager, graphs, compiled = Compute(), Compute("graphs"), Compute("compiled")
    trials = {eager: Trial(0.10, 2.8), graphs: Trial(0.01, 0.0), compiled: Trial(0.095, 2.81)}
    chosen, reason = _fastest(eager, [graphs, compiled], trials.__getitem__, 8)
    assert chosen == eager
    assert "graphs failed (its loss is 0, not 2.8)" in reason
    assert "compiled 95.0" in reason
    trials[compiled] = Trial(0.05, 2.81)
    assert _fastest(eager, [graphs, compiled], trials.__getitem__, 8)[0] == compiled
    del trials[graphs]
    chosen, reason = _fastest(eager, [graphs], trials.__getitem__, 8)
    assert chosen == eager
    assert "graphs failed (KeyError)" in reason


def test_a_pass_that_is_long_because_others_have_the_cores_is_tried_with_fewer_threads() -> None:
    """On a busy machine a tiny model took 4 s a pass with two threads, and kept to them for good."""
    two, one = Compute(threads=2), Compute(threads=1)
    trials = {two: Trial(4.0, 2.8, served=0.2), one: Trial(0.03, 2.8, served=0.4)}
    assert _fastest(two, [one], trials.__getitem__, 8)[0] == one
    served = {two: Trial(4.0, 2.8, served=0.95)}  # a large model's: nothing else is tried
    assert _fastest(two, [one], served.__getitem__, 8) == (two, f"computed in {two}: 4.0 s a pass")
    eight, four = Compute(threads=8), Compute(threads=4)
    large = {eight: Trial(4.0, 2.8, served=0.3), four: Trial(6.0, 2.8)}
    chosen, reason = _fastest(eight, [four, one], large.__getitem__, 8)
    assert chosen == eight and "with 1" not in reason


def full_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def full_cpu() -> None:
    torch.empty(2**50)


@pytest.mark.parametrize("full", [full_gpu, full_cpu])
def test_where_a_batch_does_not_fit_all_is_tried_in_more_parts(full: Callable[[], None]) -> None:
    eager, graphs = Compute(), Compute("graphs")

    def tried(compute: Compute) -> Trial:
        if compute.parts < 3:
            full()
        return Trial(seconds[compute.path], 2.8, served=0.95)

    seconds = {"eager": 1.0, "graphs": 0.5}
    chosen, reason = _fastest(eager, [graphs], tried, 32)
    assert chosen == replace(graphs, parts=4)
    assert "32 examples in fewer parts do not fit into the memory" in reason
    assert _fastest(eager, [], tried, 3)[0].parts == 3, "each row alone"
    with pytest.raises(RuntimeError, match="memory"):
        _fastest(eager, [graphs], tried, 2)
    seconds["eager"] = 4.0  # a large model's: nothing else is tried
    chosen, reason = _fastest(Compute(threads=2), [eager], tried, 32)
    assert chosen == Compute(threads=2, parts=4) and "do not fit into the memory" in reason


@pytest.mark.parametrize("full", [full_gpu, full_cpu])
def test_a_batch_that_does_not_fit_is_computed_in_parts_from_then_on(
    full: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory for five rows: eight are halved once, and the run that is killed and resumed knows of it."""
    loss = Stepwise.loss

    def scarce(self: Stepwise, model: Any, batch: Batch, labels: torch.Tensor | None = None) -> Losses:
        if len(batch.length_B) > 5:
            full()
        return loss(self, model, batch, labels)

    monkeypatch.setattr(Stepwise, "loss", scarce)
    config = tiny_config(optim__batch=8, stop__steps=12, compute__threads=1)
    events: list[Event] = []
    run = Run(config, tmp_path / "run")
    run.start(on_event=events.append)
    run.wait()
    run.close()
    told = [e for e in events if isinstance(e, Notice) and "do not fit" in e.message]
    assert [(e.message, e.at.step) for e in told] == [
        ("8 examples do not fit into the memory of cpu; now in 2 parts", 0)
    ]
    last = checkpoint.list_checkpoints(tmp_path / "run")[-1]
    state = checkpoint.load_state(tmp_path / "run" / checkpoint.FOLDER / last.id)
    assert state.compute.parts == 2
    resumed: list[Event] = []
    again = Run(
        tiny_config(optim__batch=8, compute__threads=1, stop__steps=20), tmp_path / "run", resume=True
    )
    again.start(on_event=resumed.append)
    again.wait()
    again.close()
    notices = [e.message for e in resumed if isinstance(e, Notice)]
    assert any(m.startswith("computed as before") and "in 2 parts" in m for m in notices)
    assert not any("do not fit" in m for m in notices)


def test_threads_can_be_set_and_are_kept(driven: Callable[..., Driven]) -> None:
    one = driven(compute__threads=1, **FOREVER)
    assert one.do("set compute.threads 2").ok
    one.do("stop")
    one.until(RunFinished)
    one.run.close()
    two = driven(resume=True, **FOREVER)
    two.until(Notice, lambda e: e.message == "computed as before: float32, eager, 2 CPU threads")


def test_a_model_that_is_spread_is_computed_eagerly_whatever_the_checkpoint_says(tmp_path: Path) -> None:
    """As where a run of copies, with captured graphs, goes on with `compute.parallel = fsdp`."""
    parts = cast(Parts, SimpleNamespace(device=torch.device("cpu")))
    config, chosen = tiny_config(), []
    state = cast(TrainState, SimpleNamespace(compute=Compute("graphs", threads=2)))
    for sharded in (False, True):
        training = Training(tmp_path, Inbox(), cast(Journal, None), World(size=2, sharded=sharded))
        chosen.append(training._compute(config, parts, Past(config, state=state)))
        [told] = training._news
        assert isinstance(told, Notice) and ("eagerly now" in told.message) == sharded
    assert chosen == [state.compute, Compute("eager", threads=2)]


def test_on_another_kind_of_device_it_is_chosen_anew(driven: Callable[..., Driven]) -> None:
    """Captured graphs are of no use on a CPU, nor its one thread on a GPU."""

    def of_a_gpu(*asked: Any) -> tuple[Compute, str]:
        compute, reason = choose(*asked)
        return replace(compute, device="cuda"), reason

    with patch("trainer.training.choose", of_a_gpu):
        one = driven(stop__steps=5)
        one.until(RunFinished)
        one.run.close()
    two = driven(resume=True, stop__steps=10)
    two.until(RunFinished, lambda end: end.at.step == 10)
    notices = [e.message for e in two.all(Notice)]
    assert any(m.startswith("computed in") for m in notices)
    assert not any(m.startswith("computed as before") for m in notices)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to capture graphs on")
def test_graphs_without_a_gpu_are_refused_and_a_run_that_comes_from_one_goes_on_eagerly(
    driven: Callable[..., Driven],
) -> None:
    with pytest.raises(ValueError, match=r'compute\.path = "graphs".*"eager" or "compiled" is allowed'):
        driven(compute__path="graphs")

    def on_a_gpu(asked: ComputeConfig, *given: Any) -> tuple[Compute, str]:
        compute, reason = choose(asked.model_copy(update={"path": "eager"}), *given)
        return replace(compute, device="cuda"), reason

    with patch("trainer.training.choose", on_a_gpu):
        one = driven(compute__path="graphs", stop__steps=5)
        one.until(RunFinished)
        one.run.close()
    two = driven(resume=True, compute__path="graphs", stop__steps=10)
    two.until(RunFinished, lambda end: end.at.step == 10)
    assert any("eagerly since graphs" in e.message for e in two.all(Notice))
