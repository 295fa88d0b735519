"""Real services on sockets of their own, each in a thread with its event loop."""

import asyncio
import contextlib
import io
import shutil
import tempfile
import threading
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

from fulcrum.demo.shipped import WEIGHTS
from fulcrum.domain.models import ModelRef
from fulcrum.inference.server import open_server
from fulcrum.inference.settings import Settings
from fulcrum.rpc.client import RemoteEngine
from fulcrum.rpc.errors import from_rpc_error

MODEL = ModelRef("folder:demo/clip")
SAE = "folder:demo/sae"


def png(seed=0, size=(64, 64)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


class Running:
    """A service in a thread. `stop` drains it; leaving the block does that too."""

    def __init__(self, engine=None, **settings):
        self.folder = Path(tempfile.mkdtemp(prefix="ful"))  # pytest's own paths are too long for a socket
        values = {"address": f"unix:{self.folder}/s", "folders": {"demo": WEIGHTS}, "threads": 1} | settings
        self.settings = Settings(**values)
        self._engine = engine
        self._started = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="service")

    async def _serve(self):
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with open_server(self.settings, self._engine) as self.server:
                self.address = self.server.address
                self._started.set()
                await self._stopping.wait()
        except BaseException as error:
            self._error = error
            self._started.set()

    def __enter__(self):
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            shutil.rmtree(self.folder)
            raise self._error
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder)
        if self._error is not None:
            raise self._error

    def begin_stop(self):
        with contextlib.suppress(RuntimeError):  # stopped before
            self._loop.call_soon_threadsafe(self._stopping.set)

    def stop(self):
        self.begin_stop()
        self._thread.join()

    def client(self, **options):
        return RemoteEngine(self.address, **options)

    def channel(self):
        return grpc.insecure_channel(self.address)

    def send(self, data, method="Predict", timeout=20):
        """Bytes of the test's choosing; the answer's bytes, or the domain error."""
        with self.channel() as channel:
            try:
                return channel.unary_unary(f"/fulcrum.rpc.v1.Inference/{method}")(data, timeout=timeout)
            except grpc.RpcError as error:
                raise from_rpc_error(error) from None

    def send_to_stream(self, data, method, timeout=20):
        """The same for a call that answers with a stream: its last message."""
        with self.channel() as channel:
            call = channel.unary_stream(f"/fulcrum.rpc.v1.Inference/{method}")(data, timeout=timeout)
            try:
                return list(call)[-1]
            except grpc.RpcError as error:
                raise from_rpc_error(error) from None
