"""Find, read, extend and override the presets: experiments as TOML, one file each.

A preset holds fields of `trainer.config` and some words about itself: `extends` (the preset whose values it
starts from), and either `group` (of GROUPS) and `cost` (what a run takes, in words) or `abstract` (only there
to be extended). A configuration file of one's own may say `extends` as well.

The files lie in `presets/` of a checkout and travel in the wheel as `trainer/_presets`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tomlkit

from trainer import config as configuration
from trainer.config import Config, ConfigError

DATA_FILES = ("train_file", "valid_file", "test_file")
ABOUT_ITSELF = ("extends", "group", "cost", "abstract")

GROUPS = {
    "small": "On any machine",
    "paper": "As in the paper",
    "variants": "Ablations and variants",
    "ours": "With settings of our own",
    "gsm8k": "GSM8K, as in the paper",
    "coconut": "Coconut, as in its paper",
}
"""What the presets are listed under, in this order."""


class Preset(NamedTuple):
    """A preset as `stepwise presets` lists it. group: of GROUPS."""

    name: str
    title: str
    cost: str
    group: str


def folder() -> Path:
    """Where the presets lie: beside this module in a wheel, else in the checkout."""
    here = Path(__file__).parent
    installed = here / "_presets"
    return installed if installed.is_dir() else here.parent / "presets"


def names() -> list[str]:
    """The presets that can be run, as they are listed."""
    return [preset.name for preset in listing()]


def listing() -> list[Preset]:
    """The presets that can be run: group by group, multiplication before other tasks, the smallest first."""
    documents = {path.stem: configuration.load(path) for path in folder().glob("*.toml")}
    shown = {name: d for name, d in documents.items() if not d.get("abstract", False)}
    presets = [Preset(name, d["title"], d["cost"], d["group"]) for name, d in shown.items()]
    groups = list(GROUPS)

    def place(preset: Preset) -> tuple[int, bool, int, str]:
        name = preset.name
        return groups.index(preset.group), not name.startswith("mult"), len(name.split("-")[0]), name

    return sorted(presets, key=place)


def source(name: str) -> str:
    """The TOML of a preset with its comments. Raises `ConfigError` when there is no such preset."""
    return _path(name).read_text(encoding="utf-8")


def resolve(name: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a preset with dotted `overrides` on top.

    Raises `ConfigError`: an unknown preset (with the nearest), or every wrong field at once.
    """
    return configuration.build(_on_top(document(name), overrides or {}))


def document(name: str) -> dict[str, Any]:
    """The tables of a preset with those it extends beneath. Raises `ConfigError`."""
    path = _path(name)
    return _extended(configuration.load(path), path.name, (name,))


def explain(name: str) -> str:
    """A preset as it stands in its file, then all its values with their meaning, as comments.

    The text is itself a configuration file that `stepwise run config` takes. Raises `ConfigError`.
    """
    config = resolve(name)
    lines = [source(name).rstrip(), "", "# All values, with those it extends and the defaults beneath:"]
    for row in configuration.table():
        value = _shown(configuration.get(config, row.key))
        lines.append(f"#   {row.key} = {value}".ljust(42) + f"  {row.description}")
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return "none" if value is None else tomlkit.item(value).as_string()


def configure(
    base: str | Path,
    assignments: Iterable[str] = (),
    *,
    seed: int | None = None,
    device: str | None = None,
    gpus: int | None = None,
) -> Config:
    """What `stepwise run` trains: a preset (by name) or a file (a Path), `KEY=VALUE` texts on top.

    Data files are found from the current folder, as on a command line.

    Raises `ConfigError` with every problem of the file and of the assignments at once.
    """
    tables = document(base) if isinstance(base, str) else _extended(configuration.load(base), str(base), ())
    if not tables:
        raise ConfigError(f"{base}: says nothing; a configuration names at least its [data]")
    problems: list[str] = []
    overrides: dict[str, Any] = {}
    for text in assignments:
        try:
            key, value = configuration.parse_assignment(text)
        except ConfigError as error:
            problems.append(str(error))
        else:
            overrides[key] = value
    overrides |= {
        key: value for key, value in (("seed", seed), ("device", device), ("gpus", gpus)) if value is not None
    }
    try:
        config = configuration.build(_on_top(tables, overrides))
    except ConfigError as error:
        problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    # From the root: a run is resumed, measured and asked in other folders as well.
    return with_files(config, lambda file: str(Path(file).expanduser().absolute()))


def with_files(config: Config, renamed: Callable[[str], str]) -> Config:
    """The configuration with its data files named otherwise."""
    named = {name: getattr(config.data, name) for name in DATA_FILES}
    update = {name: renamed(file) for name, file in named.items() if file is not None}
    return config.model_copy(update={"data": config.data.model_copy(update=update)})


def _on_top(tables: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    return configuration.merge(tables, configuration.nested(overrides))


def _path(name: str) -> Path:
    path = folder() / f"{name}.toml"
    known = sorted(p.stem for p in folder().glob("*.toml"))
    if name in known:
        return path
    near = difflib.get_close_matches(name, names(), n=1, cutoff=0.3)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"there is no preset {name!r}; {hint}the presets are: {', '.join(names())}")


def _extended(tables: dict[str, Any], where: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """`tables` on top of what they extend, without the words a file says about itself."""
    own = {key: value for key, value in tables.items() if key not in ABOUT_ITSELF}
    parent = tables.get("extends")
    if parent is None:
        return own
    if not isinstance(parent, str):
        raise ConfigError(f"{where}: extends = {parent!r}: the name of a preset is allowed")
    if parent in seen:
        raise ConfigError(f"{where}: extends goes round in a circle: {' → '.join((*seen, parent))}")
    try:
        path = _path(parent)
    except ConfigError as error:
        raise ConfigError(f"{where}: extends: {error}") from None
    below = _extended(configuration.load(path), path.name, (*seen, parent))
    return configuration.merge(below, own)
