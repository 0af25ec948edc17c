"""Keys that are typed faster than the screen opens.

Textual gives a key to what has the focus when it arrives. It then goes from queue to queue, and so does what
comes of it: on a busy machine the `7` of `n` `7` would go to the charts, not into the dialog that `n` opens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeVar

from textual.app import App
from textual.driver import Driver
from textual.events import Event, Key
from textual.message_pump import MessagePump

Result = TypeVar("Result")

SWEEPS = 8
"""Most rounds through the queues for one key: none may ever hold up those after it for good."""


class TypingAhead(App[Result]):
    """Gives each key to what the ones before it have opened."""

    def __init__(self, driver_class: type[Driver] | None = None) -> None:
        super().__init__(driver_class=driver_class)
        self._typed: deque[Key] = deque()
        self._given: Key | None = None
        self._giver: asyncio.Task[None] | None = None

    async def on_event(self, event: Event) -> None:
        """Textual's, for all that happens. A key waits for its turn, and then comes here again."""
        if not isinstance(event, Key) or event.is_forwarded:
            await super().on_event(event)
        elif self._exit:
            return  # there may be no screen any more
        elif event is self._given:
            await super().on_event(event)
        else:
            self._typed.append(event)
            if self._giver is None:
                self._giver = asyncio.create_task(self._give())

    async def _give(self) -> None:
        while self._typed:
            self._given = self._next()
            self.post_message(self._given)
            await self._settle()
        self._giver = None

    def _next(self) -> Key:
        """What was typed first. Escape and a key that are read at once come as the key with alt: two keys
        all the same, where nothing is bound to that."""
        key = self._typed.popleft()
        plain = key.key.removeprefix("alt+")
        if plain == key.key or key.character is None or self._is_bound(key.key):
            return key
        self._typed.appendleft(Key(plain, key.character))
        return Key("escape", "\x1b")

    def _is_bound(self, name: str) -> bool:
        return not self.screen_stack or name in self.screen.active_bindings

    async def _settle(self) -> None:
        """Return when what a key has set in motion has come to rest.

        It, and the messages that it makes, go from the focus outwards to the app: so do the rounds. What
        somebody on the way posts to himself lies in a queue when a round is over; the next one sees to it.
        """
        for _ in range(SWEEPS):
            pumps = self._way()
            for pump in pumps:
                await _caught_up(pump)
            rests = all(pump._message_queue.empty() for pump in pumps)
            if self._exit or (rests and pumps == self._way()):
                return

    def _way(self) -> list[MessagePump]:
        """Whose queues a key goes through: those of the focus, of all that is around it, and the app's."""
        screens = self.screen_stack
        if not screens or (len(screens) == 1 and not screens[0].is_mounted):
            return [self]  # no key acts before the first screen stands
        return [*(self.focused or self.screen).ancestors_with_self]


async def _caught_up(pump: MessagePump) -> None:
    """Return when all that is in this queue now has been dealt with, or nobody looks into it any more."""
    reached = asyncio.Event()
    if not pump.call_later(reached.set):
        return
    waiting = asyncio.create_task(reached.wait())
    ends = [] if pump._task is None else [pump._task]
    await asyncio.wait([waiting, *ends], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
