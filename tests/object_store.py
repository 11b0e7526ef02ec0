"""A folder as a bucket of an object store, for what reads it by the protocol of S3; Spark has it by :func:`hadoop`.

The server only reads, and knows only what clients ask it: objects, parts of them, and lists of keys.
"""

from __future__ import annotations

import email.utils
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "store"


def hadoop(folder: Path) -> dict[str, str]:
    """Spark's settings by which ``s3a://store`` is the folder."""
    return {
        "spark.hadoop.fs.s3a.impl": "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme",
        f"spark.hadoop.fs.viewfs.mounttable.{BUCKET}.linkFallback": folder.as_uri(),
    }


@contextmanager
def served(folder: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The environment by which clients of S3 find the folder as their bucket, and the keys that they have read."""
    read: list[str] = []

    class Bucket(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            _, bucket, *key = unquote(url.path).split("/", 2)
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            if bucket != BUCKET:
                self.answer(404, error("NoSuchBucket"))
            elif "list-type" in asked:
                self.answer(200, listing(folder, asked))
            elif not any(key) or not (path := folder / key[0]).is_file():
                self.answer(404, error("NoSuchKey"))
            else:
                read.append(key[0])
                self.give(path.read_bytes(), self.headers.get("Range", "bytes=0-"))

        do_HEAD = do_GET

        def give(self, data: bytes, range_: str) -> None:
            first, last = range_.removeprefix("bytes=").split("-")
            begin = int(first) if first else max(0, len(data) - int(last))
            end = min(int(last), len(data) - 1) if first and last else len(data) - 1
            status = 206 if "Range" in self.headers else 200
            self.answer(status, data[begin : end + 1], {"Content-Range": f"bytes {begin}-{end}/{len(data)}"})

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            always = {
                "Content-Length": str(len(body)),
                "ETag": '"1"',
                "Last-Modified": email.utils.formatdate(0, usegmt=True),
            }
            for name, value in (always | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something",
        }, read  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()


def listing(folder: Path, asked: dict[str, str]) -> bytes:
    """ListObjectsV2, in one answer."""
    prefix, delimiter, after = (asked.get(name, "") for name in ("prefix", "delimiter", "start-after"))
    files = (path for path in folder.rglob("*") if path.is_file())
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    found = sorted(key for key in sizes if key.startswith(prefix) and key > after)
    deeper = {key for key in found if delimiter and delimiter in key[len(prefix) :]}
    folders = sorted({prefix + key[len(prefix) :].split(delimiter)[0] + delimiter for key in deeper})
    rows = [
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;1&quot;</ETag><Size>{sizes[key]}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for key in found
        if key not in deeper
    ]
    rows += [f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders]
    about = (
        f"<Name>{BUCKET}</Name><KeyCount>{len(rows)}</KeyCount><MaxKeys>99999</MaxKeys><IsTruncated>false</IsTruncated>"
    )
    return f"<ListBucketResult><Prefix>{escape(prefix)}</Prefix>{about}{''.join(rows)}</ListBucketResult>".encode()
