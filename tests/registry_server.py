"""A small schema registry on this machine: ids, GUIDs and references, with credentials and faults on demand."""

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID, uuid5

_GUIDS = UUID(int=0)


@dataclass
class Registry:
    """`faults`: statuses of the next answers; `authorization`: the header that it wants; `asked`: paths."""

    port: int = 0
    schemas: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False)
    versions: dict[tuple[str, int], int] = field(default_factory=dict)
    faults: list[int] = field(default_factory=list)
    authorization: str | None = None
    asked: list[str] = field(default_factory=list, repr=False)
    scheme: str = "http"

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def add(self, schema: Any, kind: str = "AVRO", references: list[tuple[str, str, int]] | None = None) -> int:
        number = 100 + len(self.schemas)
        text = schema if isinstance(schema, str) else json.dumps(schema)
        used = [{"name": n, "subject": s, "version": v} for n, s, v in references or []]
        self.schemas[number] = {"schema": text, "schemaType": kind, "references": used}
        return number

    def guid(self, number: int) -> UUID:
        return uuid5(_GUIDS, str(number))

    def want_basic(self, user: str, password: str) -> None:
        self.authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def answer(self, path: str, authorization: str | None) -> tuple[int, Any]:
        self.asked.append(path)
        if self.faults and (status := self.faults.pop(0)):
            return status, {"error_code": status, "message": "a fault"}
        if self.authorization not in {None, authorization}:
            return 401, {"error_code": 401, "message": "Unauthorized"}
        return self._find(path.partition("?")[0].strip("/").split("/"))

    def _find(self, parts: list[str]) -> tuple[int, Any]:
        if parts == ["schemas", "types"]:
            return 200, ["AVRO", "PROTOBUF"]
        if parts[:2] == ["schemas", "ids"]:
            return self._schema(int(parts[2]))
        if parts[:2] == ["schemas", "guids"]:
            return self._schema(next((n for n in self.schemas if str(self.guid(n)) == parts[2]), -1))
        if parts[0] == "subjects":
            number = self.versions.get((parts[1], int(parts[3])), -1)
            status, found = self._schema(number)
            return status, {**found, "subject": parts[1], "version": int(parts[3]), "id": number}
        return 404, {"error_code": 404, "message": "no such path"}

    def _schema(self, number: int) -> tuple[int, dict[str, Any]]:
        if number not in self.schemas:
            return 404, {"error_code": 40403, "message": "Schema not found"}
        return 200, self.schemas[number]


@contextmanager
def serve_registry(tls: ssl.SSLContext | None = None) -> Iterator[Registry]:
    registry = Registry(scheme="https" if tls else "http")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, found = registry.answer(self.path, self.headers.get("Authorization"))
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            # A client that refuses the certificate, or has none, ends the connection.
            with suppress(OSError):
                super().handle()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's word
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        # The handshake is the thread's that answers, so that a client which breaks it off stops nobody else.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    registry.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
