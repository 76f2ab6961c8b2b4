"""An S3 server of the tests' own, with one bucket, and the environment that leads to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs


@dataclass(frozen=True)
class S3Server:
    """A running server. `environment`: for processes that are to reach it."""

    endpoint: str
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def files(self) -> fs.S3FileSystem:
        return fs.S3FileSystem(
            endpoint_override=self.endpoint, access_key="test", secret_key="test", allow_bucket_creation=True
        )

    def keys(self, prefix: str) -> list[str]:
        """Return the objects below a prefix, without it."""
        selector = fs.FileSelector(f"{self.bucket}/{prefix}", recursive=True, allow_not_found=True)
        found = self.files.get_file_info(selector)
        return sorted(
            info.path.removeprefix(f"{self.bucket}/{prefix}/") for info in found if info.type == fs.FileType.File
        )

    def read(self, path: str) -> bytes:
        with self.files.open_input_stream(f"{self.bucket}/{path}") as stream:
            return bytes(stream.readall())


@contextmanager
def running_s3(address: str = "127.0.0.1") -> Iterator[S3Server]:
    """Run a server for the time of the block, with this process's environment leading to it."""
    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        found = S3Server(f"http://{host}:{port}", f"bucket-{uuid4().hex[:8]}")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in found.environment.items():
                patch.setenv(name, value)
            found.files.create_dir(found.bucket)
            yield found
    finally:
        server.stop()
