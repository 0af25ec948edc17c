"""A Hugging Face hub of one dataset, on this machine: as much of its protocol as `load_dataset` speaks."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow
from pyarrow import parquet

COMMIT = "1" * 40
README = b"""---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
---
"""


@contextmanager
def serving(name: str, splits: dict[str, list[dict[str, str]]]) -> Iterator[str]:
    """The address of a hub that has the dataset `name` with these rows."""
    files = {"README.md": README}
    for split, rows in splits.items():
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
        files[f"main/{split}-00000-of-00001.parquet"] = buffer.getvalue()

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith(f"/datasets/{name}/resolve/"):
                self._file(path.split("/", 6)[6])
            elif path.startswith(f"/api/datasets/{name}/tree/{COMMIT}"):
                folder = path.partition(COMMIT)[2].strip("/")
                here = {f: data for f, data in files.items() if f.rpartition("/")[0] == folder}
                folders = [] if folder else [{"type": "directory", "path": "main", "oid": COMMIT, "size": 0}]
                self._json([_entry(f, data) for f, data in here.items()] + folders)
            elif path.startswith(f"/api/datasets/{name}"):
                siblings = [{"rfilename": file} for file in files]
                self._json({"id": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
            else:
                self._answer(200 if path == "/" else 404, b"")

        def _file(self, file: str) -> None:
            if file in files:
                self._answer(200, files[file], {"ETag": f'"{_digest(files[file])}"', "X-Repo-Commit": COMMIT})
            else:
                self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

        def _json(self, value: Any) -> None:
            self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _entry(file: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": file, "size": len(data), "oid": _digest(data)}


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
