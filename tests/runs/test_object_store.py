"""Inputs in an object store, by its own protocol, from a server on this machine."""

import http.server
import threading
from typing import ClassVar
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from pellucid.runs import remote
from pellucid.runs.manifest import Item
from pellucid.runs.work import Work, WorkOrder
from runs.test_work import ENTRY, asked

fs = pytest.importorskip("pyarrow.fs")


class Store(http.server.BaseHTTPRequestHandler):
    """As much of S3 as reading takes: the size of an object, and ranges of its bytes."""

    objects: ClassVar[dict] = {}
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        data, status, extra = self.objects.get(self.path.partition("?")[0]), 200, {}
        if data is None:
            data, status = b"<Error><Code>NoSuchKey</Code></Error>", 404
        elif span := self.headers.get("Range"):
            first, last = (int(part) for part in span.removeprefix("bytes=").split("-"))
            extra["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
            data, status = data[first : last + 1], 206
        self.send_response(status)
        headers = {"Content-Length": len(data), "ETag": '"1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        for name, value in (headers | extra).items():
            self.send_header(name, str(value))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(Store, "objects", {})
    remote._store.cache_clear()  # whose server is gone
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    for name, value in {
        "AWS_ENDPOINT_URL": address, "AWS_ENDPOINT_URL_S3": address, "AWS_DEFAULT_REGION": "here",
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield Store.objects
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(not hasattr(fs, "S3FileSystem"), reason="this pyarrow was built without S3")
def test_rows_of_an_s3_server_are_those_of_the_files(store, tmp_path):
    file = tmp_path / "0.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 32, 3)).astype(np.uint8)).save(file)
    store["/bucket/some/0.png"] = file.read_bytes()
    odd = "a b/100%/ü+%20&#1.png"
    store[f"/bucket/{quote(odd)}"] = file.read_bytes()
    work = Work(WorkOrder(ENTRY, tuple(r.as_dict() for r in asked("grad-cam"))))
    sources = ("s3://bucket/some/0.png", f"s3://bucket/{odd}", "s3://bucket/none.png", str(file))
    items = [Item(source) for source in sources]
    rows = {row["input"]: row for row in work.rows(items)}
    there, strange, gone, here = (rows[item.source] for item in items)
    assert (strange["status"], strange["sha256"]) == ("done", here["sha256"])
    assert (there["status"], there["sha256"], there["map"]) == ("done", here["sha256"], here["map"])
    assert gone["status"] == "failed"
    assert "s3://bucket/none.png can't be fetched" in gone["error"]
