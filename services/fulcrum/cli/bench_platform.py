"""The running platform as benchmarks measure it."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from fulcrum.cli import options
from fulcrum.domain.engine import InferenceEngine
from fulcrum.domain.errors import FulcrumError, ServiceUnavailable
from fulcrum.domain.models import ModelRef
from fulcrum.domain.results import FloatArray
from fulcrum.domain.tasks import ClassSet

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from fulcrum.bench.serve import ServedModel
    from fulcrum.client import Client
    from fulcrum.local.platform import Platform, Started

_UNTRAINED = "untrained:topk:4096:32"


def served_model(name: str) -> "ServedModel":
    """The demo's model by its folder, every other one by its OpenCLIP name with random weights."""
    from fulcrum.bench.serve import ServedModel
    from fulcrum.demo.shipped import demo_model, demo_sae

    if name == options.DEMO:
        return ServedModel(name, demo_model(), ModelRef("folder:demo/clip"), demo_sae(), "folder:demo/sae")
    ref = ModelRef(name, random_weights=True)
    return ServedModel(name, ref, ref, _UNTRAINED, _UNTRAINED)


class PlatformApart:
    """A platform in `folder` whose supervisor runs in a process of its own, as it does for everybody who asks one.

    In this process it would copy every line of every log between the calls that are timed here.
    """

    def __init__(self, folder: Path) -> None:
        spawned = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawned.Pipe()
        self._process = spawned.Process(target=_supervise, args=(folder, theirs), name="fulcrum-platform")
        self._theirs = theirs

    def __enter__(self) -> "Started":
        """Raises ServiceUnavailable with what prevented the start."""
        self._process.start()
        self._theirs.close()
        try:
            found: Started | str = self._pipe.recv()
        except EOFError:
            found = "the platform's process ended before it served"
        except BaseException:  # interrupted: nobody would end it
            self._end()
            raise
        if isinstance(found, str):
            self._end()
            raise ServiceUnavailable(found)
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._pipe.close()  # which it takes for its end
        self._process.join()

    @property
    def pid(self) -> int | None:
        """Of the supervisor's process; None before the start."""
        return self._process.pid

    def memory_bytes(self) -> int:
        """Resident memory of the inference service."""
        self._pipe.send("memory")
        found: int = self._pipe.recv()
        return found


def _supervise(folder: Path, pipe: "Connection") -> None:
    from fulcrum.cli.status import StatusBoard
    from fulcrum.cli.up import local_platform

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the process that asks ends this one
    platform = local_platform(
        StatusBoard(quiet=True), device="cpu", data_dir=folder / "data", client_file=folder / "client.json"
    )
    try:
        started = platform.start()
    except FulcrumError as error:
        pipe.send(str(error))
        return
    try:
        pipe.send(started)
        while True:
            pipe.recv()
            pipe.send(_memory_bytes(platform))
    except (EOFError, OSError):  # nobody asks any more
        return
    finally:
        platform.stop()


def _memory_bytes(platform: "Platform") -> int:
    """Of the inference service: its process is a child of its guard."""
    import psutil

    (inference,) = (s for s in platform.status() if s.name == "inference")
    if inference.pid is None:
        return 0
    guard = psutil.Process(inference.pid)
    return max(p.memory_info().rss for p in (guard, *guard.children(recursive=True)))


class RunningPlatform:
    """Clients of one running platform; closes them in the end."""

    def __init__(self, started: "Started", memory_bytes: Callable[[], int]) -> None:
        from fulcrum.client import Client
        from fulcrum.rpc.client import RemoteEngine

        self._started, self._memory_bytes = started, memory_bytes
        self._http = Client(url=started.url, token=started.token)
        self._engines: list[RemoteEngine] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        for engine in self._engines:
            engine.close()

    def engine(self, user: str) -> InferenceEngine:
        """A new gRPC client."""
        from fulcrum.rpc.client import RemoteEngine

        started = self._started
        engine = RemoteEngine(started.inference_address, token=started.inference_token, user=user)
        self._engines.append(engine)
        return engine

    def predict_over_http(self, ref: ModelRef, image: bytes, task: ClassSet) -> Callable[[], FloatArray]:
        """Through the SDK, the gateway and gRPC."""
        model = self._http.models.wait(self._http.models.create(ref.model_name, ref))
        uploaded = self._http.images.upload(image)

        def predict() -> FloatArray:
            return np.asarray(self._http.predict(uploaded, task, model=model).before[0].logits)

        return predict

    def memory_bytes(self) -> int:
        """Resident memory of the inference service."""
        return self._memory_bytes()


def bench_platform(
    folder: Path, image_folders: Mapping[str, Path], *, threads: int, n_workers: int = 1
) -> "Platform":
    """A platform of its own in `folder`: its workers take `threads` threads each and imports may name the folders."""
    from fulcrum.cli.status import StatusBoard
    from fulcrum.cli.up import local_platform

    return local_platform(
        StatusBoard(quiet=True),
        image_folders={name: path.resolve() for name, path in image_folders.items()},
        environment={
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "FULCRUM_WORKER_CONCURRENCY": str(n_workers),
        },
        device="cpu",
        data_dir=folder,
        client_file=folder.with_suffix(".json"),
    )


class Asked:
    """SDK clients of a running platform: its first administrator's, and those of colleagues."""

    def __init__(self, started: "Started") -> None:
        from fulcrum.client import Client

        self._url = started.url
        self.client = Client(started.url, started.token, timeout_s=300)
        self._others: list[Client] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in (self.client, *self._others):
            client.close()

    def colleague(self) -> "Client":
        """A client of somebody invited to the first project, who follows the link as a browser would."""
        import httpx

        from fulcrum.client import Client

        project = next(iter(self.client.projects.list()))
        invited = self.client.users.invite(
            f"colleague {len(self._others) + 1}", project=project, role="analyst"
        )
        link = invited.login_link.partition("link=")[2]
        answer = httpx.post(f"{self._url}/v1/auth/links:redeem", json={"link": link})
        answer.raise_for_status()
        client = Client(self._url, login=answer.cookies["fulcrum_session"], timeout_s=300)
        self._others.append(client)
        return client
