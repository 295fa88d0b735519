"""The engine of the gateway's tests: a real LocalEngine in this process, with the interface of AsyncRemoteEngine."""

import asyncio
import dataclasses
import queue
from collections.abc import AsyncIterator
from typing import Any

from fulcrum.demo.shipped import WEIGHTS
from fulcrum.domain.errors import UnknownArtifact, UnknownModel, UnknownSae
from fulcrum.domain.models import ModelInfo, ModelRef, SaeInfo
from fulcrum.domain.provenance import Answered, Provenance
from fulcrum.engine.local import LocalEngine

FOLDERS = {"demo": WEIGHTS}
DEMO_MODEL = "folder:demo/clip"
DEMO_SAE = "folder:demo/sae"


class EngineInThreads:
    """Answers as the inference service does: names instead of paths, provenance with every answer.

    `down` makes every call fail with that error, as an unreachable service does; `asked` remembers who asked what.
    """

    def __init__(self, local: LocalEngine, artifacts: Any = None) -> None:
        self._local = local
        self._artifacts = artifacts
        self.down: Exception | None = None
        self.asked: list[tuple[str, str, bool]] = []

    def __getattr__(self, name: str) -> Any:
        if name not in {
            "encode_images", "encode_texts", "encode_latents", "predict", "predict_steered", "attribute", "steer"
        }:  # fmt: skip
            raise AttributeError(name)

        async def call(
            model: ModelRef, *args: Any, user: str, deterministic: bool = False, **kwargs: Any
        ) -> Any:
            self._note(name, user, deterministic)

            def run() -> Answered[Any]:
                real, arguments = self._real(model, args, kwargs, name)
                value = getattr(self._local, name)(real, *arguments[0], **arguments[1])
                return Answered(value, self._provenance(real, arguments, name, deterministic))

            return await asyncio.to_thread(run)

        return call

    async def load_model(self, ref: ModelRef, *, user: str = "") -> ModelInfo:
        self._note("load_model", user, False)
        info = await asyncio.to_thread(self._local.load_model, self._model(ref))
        return dataclasses.replace(info, ref=ref)

    async def load_sae(self, path: str, model: ModelRef, *, user: str = "") -> SaeInfo:
        self._note("load_sae", user, False)
        return await asyncio.to_thread(self._local.load_sae, self._sae(path), self._model(model))

    async def warm_model(self, model: ModelRef, sae: str | None = None, *, user: str = "") -> ModelInfo:
        info = await self.load_model(model, user=user)
        if sae is not None:
            await self.load_sae(sae, model, user=user)
        return info

    async def list_models(self, *, user: str = "") -> list[ModelInfo]:
        self._note("list_models", user, False)
        return []

    async def health(self, timeout_s: float = 2.0) -> bool:
        return self.down is None

    async def aclose(self) -> None:
        pass

    async def sweep(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        answered = await self._call_plain("sweep", *args, **kwargs)
        yield answered

    async def suggest(
        self, model: ModelRef, *args: Any, user: str, deterministic: bool = False, **kwargs: Any
    ) -> AsyncIterator[Any]:
        self._note("suggest", user, deterministic)
        found: queue.Queue[Any] = queue.Queue()
        arguments: list[Any] = []

        def run() -> None:
            try:
                real, given = self._real(model, args, kwargs, "suggest")
                arguments.extend((real, given))
                for suggestion in self._local.suggest(real, *given[0], **given[1]):
                    found.put(suggestion)
                found.put(None)
            except Exception as error:
                found.put(error)

        task = asyncio.create_task(asyncio.to_thread(run))
        all_of_them = []
        while (item := await asyncio.to_thread(found.get)) is not None:
            if isinstance(item, Exception):
                await task
                raise item
            all_of_them.append(item)
            yield item
        await task
        yield Answered(tuple(all_of_them), self._provenance(*arguments, "suggest", deterministic))

    async def _call_plain(self, name: str, model: ModelRef, *args: Any, user: str, **kwargs: Any) -> Any:
        deterministic = kwargs.pop("deterministic", False)
        self._note(name, user, deterministic)

        def run() -> Answered[Any]:
            real, arguments = self._real(model, args, kwargs, name)
            value = getattr(self._local, name)(real, *arguments[0], **arguments[1])
            return Answered(value, self._provenance(real, arguments, name, deterministic))

        return await asyncio.to_thread(run)

    def _note(self, name: str, user: str, deterministic: bool) -> None:
        if self.down is not None:
            raise self.down
        self.asked.append((name, user, deterministic))

    def _model(self, ref: ModelRef) -> ModelRef:
        folder, _, rest = ref.model_name.removeprefix("folder:").partition("/")
        if not ref.model_name.startswith("folder:") or folder not in FOLDERS:
            raise UnknownModel(f"no model {ref.model_name!r}")
        return ModelRef(f"local-dir:{FOLDERS[folder] / rest}")

    def _sae(self, source: str) -> str:
        if source.startswith("artifact:"):
            config, weights = source.removeprefix("artifact:").split(":")
            folder = self._artifacts.local_path(config).parent / f"sae-{config[:16]}-{weights[:16]}"
            folder.mkdir(exist_ok=True)
            (folder / "cfg.json").write_bytes(self._artifacts.local_path(config).read_bytes())
            (folder / "sae_weights.safetensors").write_bytes(self._artifacts.local_path(weights).read_bytes())
            return str(folder)
        folder_name, _, rest = source.removeprefix("folder:").partition("/")
        if not source.startswith("folder:") or folder_name not in FOLDERS:
            raise UnknownSae(f"no SAE {source!r}")
        return str(FOLDERS[folder_name] / rest)

    def _image(self, image: Any) -> Any:
        sha256 = getattr(image, "sha256", None)
        if sha256 is None:
            return image
        if self._artifacts is None:
            raise UnknownArtifact(f"no artifact {sha256}")
        return self._artifacts.read_bytes(sha256, 32 << 20)

    def _real(
        self, model: ModelRef, args: Any, kwargs: Any, name: str
    ) -> tuple[ModelRef, tuple[list[Any], Any]]:
        positional, named = list(args), dict(kwargs)
        takes_sae = name in {"encode_latents", "predict_steered", "attribute", "steer", "sweep", "suggest"}
        if takes_sae:
            if "sae" in named:
                named["sae"] = self._sae(named["sae"])
            else:
                positional[0] = self._sae(positional[0])
        for where in (positional, named):
            for key in range(len(where)) if isinstance(where, list) else list(where):
                value = where[key]
                if (
                    getattr(value, "sha256", None) is not None
                    and len(getattr(value, "__dataclass_fields__", ())) == 1
                ):
                    where[key] = self._image(value)
                elif name in {"encode_images", "predict", "predict_steered"} and isinstance(
                    value, list | tuple
                ):
                    where[key] = [self._image(v) for v in value]
        return self._model(model), (positional, named)

    def _provenance(self, model: ModelRef, arguments: Any, name: str, deterministic: bool) -> Provenance:
        positional, named = arguments
        info = self._local.load_model(model)
        sae = None
        if name in {"encode_latents", "predict_steered", "attribute", "steer", "sweep", "suggest"}:
            sae = self._local.load_sae(named.get("sae", positional[0] if positional else ""), model)
        return self._plain_provenance(info, sae, deterministic)

    def _plain_provenance(
        self, info: ModelInfo, sae: SaeInfo | None, deterministic: bool = False
    ) -> Provenance:
        return Provenance(
            model_sha256=info.weights_sha256,
            sae_sha256=None if sae is None else sae.weights_sha256,
            hook_point=None if sae is None else str(sae.hook_point),
            preprocess_sha256=info.preprocess_sha256,
            device=info.device,
            dtype=info.dtype,
            deterministic=deterministic,
            batch_size=1,
            queue_ms=0.0,
            compute_ms=1.0,
            prefix_cached=False,
            fulcrum_version="0.1.0",
            torch_version="2",
        )
