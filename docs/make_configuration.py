"""Write docs/configuration.md from the one table of fields: python docs/make_configuration.py"""

from __future__ import annotations

from pathlib import Path

from trainer.config import FieldRow, table

HEAD = """# Configuration

Every field a run has. A preset or a TOML file sets them by section (`[optim]`, then `lr = 1e-4`); on the
command line it is `--set optim.lr=1e-4`. In a run, `set KEY VALUE` changes those marked *live*.

A file may begin with `extends = "NAME"`: it then starts from the values of that preset.
`stepwise presets NAME` prints a preset with all its values. In `--set` and `set`, `none` means no value.

This page is made from `trainer/config.py` by `python docs/make_configuration.py`; a test checks it.

| field | default | allowed | live | meaning |
|---|---|---|---|---|
"""


def render() -> str:
    """The whole page."""
    return HEAD + "".join(f"{_line(row)}\n" for row in table())


def _line(row: FieldRow) -> str:
    default = "none" if row.default is None else f"`{row.default!r}`".replace("'", '"')
    cells = (f"`{row.key}`", default, row.allowed, "yes" if row.live else "", row.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    Path(__file__).with_name("configuration.md").write_text(render(), encoding="utf-8")
