"""Keys that are typed faster than the screen opens.

Textual gives a key to what has the focus when it arrives. It then goes from queue to queue, and what it opens
comes later: on a busy machine the `7` of `n` `7` would go to the charts, not into the dialog that `n` opens.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TypeVar

from textual.app import App
from textual.driver import Driver
from textual.events import Event, Key
from textual.message import Message
from textual.message_pump import MessagePump

Result = TypeVar("Result")

PATIENCE = 0.5
"""Seconds after which a key counts as dealt with in any case: none may ever hold up those after it."""


class KeyPassed(Message):
    """Follows a key from parent to parent: where this arrives, the key has been dealt with before."""

    def __init__(self, key: Key) -> None:
        super().__init__()
        self.key = key


class TypingAhead(App[Result]):
    """Gives each key to what the ones before it have opened."""

    def __init__(self, driver_class: type[Driver] | None = None) -> None:
        super().__init__(driver_class=driver_class)
        self._typed: deque[Key] = deque()
        self._under_way: Key | None = None
        self._target: MessagePump | None = None

    async def on_event(self, event: Event) -> None:
        """Textual's, for all that happens."""
        if not isinstance(event, Key):
            await super().on_event(event)
        elif event.is_forwarded:  # no panel took it: it stands for an action, or for nothing
            await super().on_event(event)
            await self._dealt_with(event)
        else:
            self._typed.append(event)
            if self._target is not None and not self._target.is_attached:
                self._under_way = None  # it went with the panel that it was for
            await self._give_next()

    async def on_key_passed(self, message: KeyPassed) -> None:
        await self._dealt_with(message.key)

    async def _dealt_with(self, key: Key) -> None:
        if key is self._under_way:
            self._under_way = None
            await self._give_next()

    async def _give_next(self) -> None:
        while self._typed and self._under_way is None:
            key, screen = self._typed[0], self.screen
            if len(self.screen_stack) > 1 and not screen.is_mounted:
                self._set_out(key, screen)
                screen.call_later(self.call_later, self._dealt_with, key)
                return
            self._typed.popleft()
            target = self.focused or screen
            self._set_out(key, target)
            await super().on_event(key)
            if not (key.is_forwarded and target.post_message(KeyPassed(key))):
                self._under_way = None

    def _set_out(self, key: Key, target: MessagePump) -> None:
        self._under_way, self._target = key, target
        self.set_timer(PATIENCE, partial(self._dealt_with, key))
