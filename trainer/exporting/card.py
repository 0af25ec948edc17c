"""The card of an exported model: where it comes from, how it is asked, and what its weights do not hold."""

from __future__ import annotations

import importlib.metadata
import json

from transformers import PreTrainedTokenizerBase

from trainer.asking.inspection import Loaded
from trainer.config import LATENT, Config
from trainer.methods import tokens
from trainer.methods.coconut import Coconut
from trainer.models import official
from trainer.models.origin import Origin
from trainer.pretrained import WHOLE_TOKENIZERS

PLAIN = """ids = tokenizer(f" {{question}} {control}{{eos}}"{fillers}, return_tensors="pt").input_ids
written = model.generate(ids, attention_mask=ids.new_ones(ids.shape))[0, ids.shape[1] :]
"""
THINKING = """ids = tokenizer(f" {{question}} {{eos}}{start}", return_tensors="pt").input_ids
end = torch.tensor([[tokenizer.convert_tokens_to_ids("{end}")]])
embed = model.get_input_embeddings()
with torch.no_grad():
    inputs = embed(ids)
    for _ in range({count}):  # thoughts: the last hidden state is the next input
        thought = model.base_model(inputs_embeds=inputs).last_hidden_state[:, -1:]
{last}        inputs = torch.cat([inputs, thought], 1)
    inputs = torch.cat([inputs, embed(end)], 1)
mask = torch.ones(inputs.shape[:2], dtype=torch.long)
written = model.generate(inputs_embeds=inputs, attention_mask=mask)[0]
"""
LAST = """        said = model.get_output_embeddings()(thought)[0, 0]
        if said[end[0, 0]] > said[tokenizer.convert_tokens_to_ids("{latent}")]:
            break
"""
"""How the program of the card has its answer."""


def caveats(config: Config | None, known: Origin | None, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What whoever asks must do beside plain `generate`, one sentence each."""
    if config is None or known is None:
        return [f"{caveat}."] if (caveat := official.caveat(tokenizer)) else []
    method, removed, found = config.method, known.removed, []
    if method.keep_positions and removed:
        left = known.longest_cot - removed if method.side == "right" else 0
        where = f"the {left}th token after the question's EOS" if left else "the question's EOS"
        found.append(
            f"Position ids must be {removed} higher from {where} on, as in training (method.keep_positions): "
            "plain generate counts them without that gap, and answers otherwise."
        )
    if method.fillers and removed:
        found.append(
            f"After the question's EOS {removed} tokens {tokens.FILLER} must stand (method.fillers)."
        )
    if method.explicit_share:
        no_fillers = f", and no {tokens.FILLER} after the EOS" if method.fillers and removed else ""
        found.append(
            f"Before the question's EOS a control token must stand (method.explicit_share): {tokens.DIRECT} "
            f"asks for an answer as at this stage, {tokens.EXPLICIT} for all of the CoT first{no_fillers}."
        )
    if method.name in LATENT and not method.no_thought:
        found.append(
            f"After the question come {tokens.START}, what stands for steps of the CoT, and {tokens.END}: "
            "plain generate puts nothing there."
        )
    if method.name == "coconut" and not method.no_thought:
        found.append(
            "Its thoughts are hidden states, fed back as inputs (method.name = coconut): plain generate "
            "cannot think them; the program under “How to ask” in README.md does, without a cache."
        )
    return found


def text(loaded: Loaded, known: Origin | None, caveats: list[str]) -> str:
    """The card, in Markdown. known: None for a model whose training nobody knows."""
    parts, config = loaded.parts, loaded.config
    title, task, stage = "A model exported by stepwise", "not known", "not known"
    if config is not None:
        title = task = parts.task.name
    if config is not None and known is not None:
        title = config.title or title
        stage = (
            f"{parts.method.describe(known.stage)} (stage {known.stage}; step {known.step:,}, "
            f"branch {known.branch}, checkpoint {known.checkpoint})"
        )
    files = " --data FILE" if config is not None and config.data.train_file else ""  # which stay behind
    eos = parts.tokenizer.eos_token
    question, example = _example(loaded)
    notes = "".join(f"- {caveat}\n" for caveat in caveats)
    if not notes:
        notes = (
            "Nothing: it answers as it was trained.\n"
            if known
            else "How the model was trained is not known.\n"
        )
    return f"""---
license: unknown
library_name: transformers
pipeline_tag: text-generation
tags:
- chain-of-thought
- stepwise-internalisation
---

# {title}

- Task: {task}
- Stage: {stage}
- Model: {parts.model.config.model_type}, {parts.parameters:,} parameters, {len(parts.tokenizer):,} tokens
- Exported by: stepwise {importlib.metadata.version("stepwise-tui")}

## Format

`{eos}` ends the question, the CoT and the answer, with a blank before it; a text begins with a blank:

     {{question}} {eos} {{what is left of the CoT}} {eos} #### {{answer}} {eos}

{example}
## How to ask

```python
{_program(loaded, known, question)}```

The model has no stop token, since a row has two ends: what comes after the answer's EOS means nothing.
`stepwise chat FOLDER` asks it as well, and `stepwise eval FOLDER{files}` measures it.

## What plain generate does not know

{notes}
## License

Unknown. That of the base model and of the data applies.
"""


def _example(loaded: Loaded) -> tuple[str, str]:
    """A question, and a paragraph about it; "…" and none where there are no data."""
    parts = loaded.parts
    if not parts.splits:
        return "…", ""
    line = parts.task.example_text(parts.splits["valid"], 0, parts.tokenizer)
    shown = parts.task.show_question(line.question)
    answer = parts.task.read_answer(line.answer)
    return line.question, (
        f"For example the question `{line.question}`{_meaning(shown, line.question)}; its whole CoT is "
        f"`{line.cot}`, its answer `{line.answer}`{_meaning(answer, line.answer)}.\n"
    )


def _meaning(shown: str, written: str) -> str:
    return f", which stands for {shown}" if shown != written else ""


def _program(loaded: Loaded, known: Origin | None, question: str) -> str:
    """What asks the model with plain transformers; its arguments are the folder and a question."""
    tokenizer, method = loaded.parts.tokenizer, loaded.config.method if loaded.config and known else None
    # AutoTokenizer would put some architectures' own rules into a tokenizer that is its file and no more.
    reader = type(tokenizer).__name__
    reader = "PreTrainedTokenizerFast" if reader in WHOLE_TOKENIZERS else "AutoTokenizer"
    control = tokens.DIRECT if method is not None and method.explicit_share else ""
    fillers = ""
    if method is not None and known is not None and method.fillers and known.removed:
        fillers = f' + "{tokens.FILLER}" * {known.removed}'
    imports, answers = "", PLAIN.format(control=control, fillers=fillers)
    teacher = loaded.parts.method
    if known is not None and isinstance(teacher, Coconut) and teacher.thinks:
        count = teacher.thoughts(known.scheduled)
        if teacher.feeds_back:
            last = LAST.format(end=tokens.END, latent=tokens.LATENT) if teacher.has_classifier else ""
            imports = "import torch\n"
            answers = THINKING.format(start=tokens.START, end=tokens.END, count=count, last=last)
        else:
            pauses = f' + "{tokens.START}" + "{tokens.PAUSE}" * {count} + "{tokens.END}"'
            answers = PLAIN.format(control="", fillers=pauses)
    return f"""import sys
{imports}from transformers import AutoModelForCausalLM, {reader}

folder = sys.argv[1]
question = sys.argv[2] if len(sys.argv) > 2 else {json.dumps(question, ensure_ascii=False)}
tokenizer = {reader}.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder).eval()
eos = "{tokenizer.eos_token}"
{answers}cot, _, answer = tokenizer.decode(written).partition("####")
print("CoT:", cot.partition(eos)[0].strip())
print("answer:", answer.partition(eos)[0].strip())
"""
