"""What a person wants of every cockpit: one TOML file in the user's configuration folder.

theme = "light"

[keys]
save = "ctrl+s"
advance = ""              # no key; the palette still has it
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_config_path


class SettingsError(ValueError):
    """A file that cannot be used; the message names it, and the line."""


@dataclass(frozen=True, slots=True)
class Settings:
    """theme: of `themes.THEMES`. keys: of some actions, instead of those of `keymap.KEYS`."""

    theme: str = "dark"
    keys: dict[str, str] = field(default_factory=dict)


def path() -> Path:
    """Where the file lies, if there is one."""
    return user_config_path("stepwise") / "cockpit.toml"


def load() -> Settings:
    """The person's settings. Raises `SettingsError` for what is malformed or unknown, with the line."""
    from stepwise_tui import keymap, themes

    file = path()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: {error}") from None

    def wrong(key: str, reason: str) -> SettingsError:
        return SettingsError(f"{file}, line {_line(text, key)}: {reason}")

    unknown = next((key for key in document if key not in ("theme", "keys")), None)
    if unknown is not None:
        raise wrong(unknown, f"{unknown} is not known; theme and [keys] are")
    theme = document.get("theme", Settings().theme)
    if theme not in themes.NAMES:
        raise wrong("theme", f"theme = {theme!r}: one of {', '.join(themes.NAMES)} is allowed")
    keys = document.get("keys", {})
    if not isinstance(keys, dict):
        raise wrong("keys", 'keys: a table is wanted, [keys], with a line `action = "key"` for each')
    try:
        keymap.mapped(keys)
    except keymap.KeysError as error:
        raise wrong(error.action, str(error)) from None
    return Settings(theme, keys)


def remember_theme(name: str) -> None:
    """Write the theme into the file, which stays otherwise as it is. Raises OSError."""
    import tomlkit

    from trainer.files import replace_text

    file = path()
    document = tomlkit.document()
    with contextlib.suppress(FileNotFoundError):
        document = tomlkit.parse(file.read_text(encoding="utf-8"))
    document["theme"] = name
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, tomlkit.dumps(document), durable=False)


def _line(text: str, key: str) -> int:
    """The line that sets a key, or begins a table of that name."""
    pattern = re.compile(rf"""\s*(\[\s*)?["']?{re.escape(key)}["']?\s*[\]=]""")
    return next((i for i, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)
