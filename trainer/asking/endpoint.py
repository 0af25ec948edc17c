"""Asking a model behind an OpenAI-compatible endpoint (chat completions) over HTTP.

The key comes from the environment, goes into one header and nowhere else: not into messages, not to
another host (redirects are refused).
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

KEYS = ("STEPWISE_API_KEY", "OPENAI_API_KEY")
PATIENCE = 120.0  # seconds without a byte
ATTEMPTS = 5
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between attempts; doubled each time
OVERLOADED = (408, 409, 429, 500, 502, 503, 504, 529)
"""Statuses that may pass by themselves."""
SHOWN = 200  # characters of what a server says


class EndpointError(ValueError):
    """An endpoint that does not answer as it should; the message says how, and what to do."""

    exit_code = 1


class Reply(NamedTuple):
    """What a model wrote. tokens: how many that were, None where nobody tells. seconds: wall time of it,
    without waiting for a second attempt."""

    text: str
    tokens: int | None
    seconds: float


class Endpoint:
    """One model of one endpoint, asked at temperature 0. Raises ValueError for a URL or a key that is none.

    url: what comes before `/chat/completions`, as in OpenAI's own `https://api.openai.com/v1`; an address
    that has it already is taken too. patience: seconds without a byte after which a request is given up.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        patience: float = PATIENCE,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"--endpoint {url}: an address such as http://localhost:8000/v1 is wanted")
        if parts.username or parts.password:
            raise ValueError(f"--endpoint: put the key into {KEYS[0]}, not into the address")
        self.url = f"{url.rstrip('/').removesuffix('/chat/completions')}/chat/completions"
        self.model = model
        self._key = _key()
        self._patience, self._sleep = patience, sleep
        self._answered = False
        self._opener = urllib.request.build_opener(_NoRedirect)

    def ask(self, prompt: str, *, max_tokens: int) -> Reply:
        """One answer of at most `max_tokens` tokens.

        Where the endpoint is overloaded, fails or breaks off, it is asked again, later each time. Raises
        `EndpointError` with a sentence.
        """
        document = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        wait = FIRST_WAIT
        for attempt in range(1, ATTEMPTS + 1):
            started = time.perf_counter()
            try:
                text, tokens = _read_reply(self._post(document), self.url)
            except _AgainError as trouble:
                if attempt == ATTEMPTS:
                    raise EndpointError(f"{self.url}: {trouble}; it was asked {attempt} times") from None
                self._sleep(min(max(wait, trouble.wait), LONGEST_WAIT))
                wait *= 2
            else:
                self._answered = True
                return Reply(text, tokens, time.perf_counter() - started)
        raise AssertionError("the last attempt returns or raises")

    def _post(self, document: dict[str, Any]) -> bytes:
        """The body of the answer. Raises `_AgainError` for what may pass, `EndpointError` for the rest."""
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url, json.dumps(document).encode(), headers)
        try:
            with self._opener.open(request, timeout=self._patience) as response:
                body: bytes = response.read()
                return body
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except urllib.error.URLError as error:
            if self._answered:
                raise _AgainError(f"it can be reached no more ({error.reason})") from None
            raise EndpointError(f"{self.url} cannot be reached: {error.reason}") from None
        except TimeoutError:
            raise _AgainError(f"it was silent for {self._patience:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise _AgainError(f"the connection broke ({error})") from None

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        said = _complaint(error, self._key)
        if error.code in OVERLOADED:
            return _AgainError(f"it answers {error.code}{said}", _retry_after(error))
        if error.code in (401, 403):
            what = "the key of the environment" if self._key else "a request without a key"
            return EndpointError(
                f"{self.url} refuses {what} ({error.code}{said}); {' or '.join(KEYS)} must hold a good one"
            )
        if error.code == 404:
            return EndpointError(
                f"{self.url} is not there, or knows no model {self.model!r} (404{said}); the address goes up "
                "to what comes before /chat/completions, most often it ends in /v1"
            )
        if error.code in (301, 302, 303, 307, 308):
            there = error.headers.get("Location", "elsewhere")
            return EndpointError(f"{self.url} says to go to {there}; give that address if it is meant")
        return EndpointError(f"{self.url} refuses the request ({error.code}{said})")


class _AgainError(Exception):
    """What may pass by itself. wait: seconds that the server asks for."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to whatever host it names."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _read_reply(body: bytes, url: str) -> tuple[str, int | None]:
    """The text and its number of tokens.

    Raises `_AgainError` for what is not JSON, `EndpointError` for JSON of another shape.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise _AgainError(f"its answer is not JSON: {_clipped(body.decode('utf-8', 'replace'))!r}") from None
    try:
        text = document["choices"][0]["message"]["content"]
        tokens = (document.get("usage") or {}).get("completion_tokens")
    except (LookupError, TypeError, AttributeError):
        raise EndpointError(f"{url}: its answer is no chat completion: {_clipped(str(document))}") from None
    # Without content the model wrote nothing that is shown.
    return text if isinstance(text, str) else "", tokens if isinstance(tokens, int) else None


def _key() -> str:
    """The key of the environment, "" where there is none. Raises ValueError for what no header can carry."""
    for name in KEYS:
        key = os.environ.get(name, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise ValueError(f"{name} holds no key: it has characters that none has")
        if key:
            return key
    return ""


def _complaint(error: urllib.error.HTTPError, key: str) -> str:
    """What the server says of it, without the key should it repeat it."""
    try:
        text = error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""
    try:
        document = json.loads(text)
        found = document["error"]
        text = str(found["message"] if isinstance(found, dict) else found)
    except (ValueError, LookupError, TypeError):
        pass
    if key:
        text = text.replace(key, "…")
    return f": {_clipped(text)}" if text.strip() else ""


def _retry_after(error: urllib.error.HTTPError) -> float:
    try:
        return float(error.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0  # a date


def _clipped(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
