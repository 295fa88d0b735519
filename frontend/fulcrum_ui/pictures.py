"""Routes for images, beside the script: small, cached by the browser, and only with the visitor's own login.

So a page sends addresses, images load when they come into view, and a slider sends no image again.
"""

import asyncio
import io
import time
from collections.abc import Callable
from functools import lru_cache, partial
from urllib.parse import quote

from PIL import Image, ImageOps, UnidentifiedImageError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fulcrum.client import Client
from fulcrum.domain.concepts import TopImage
from fulcrum.domain.errors import FulcrumError, NotFound, Unauthenticated
from fulcrum_ui.visitor import COOKIE, client_of

PREFIX = "/pictures"
_KEPT_S = 300
_SIZES = (64, 96, 128, 192, 256, 384, 512, 768)
_HEADERS = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}


def image_url(image_id: str, size: int = 512) -> str:
    """An uploaded image, as the square that the model sees."""
    return f"{PREFIX}/images/{image_id}?size={size}"


def sample_url(dataset_id: str, sample: str, size: int = 192) -> str:
    """An image of a data set."""
    return f"{PREFIX}/datasets/{dataset_id}/{quote(sample, safe='')}?size={size}"


def example_url(sae_id: str, latent: int, rank: int, dataset_id: str | None = None, size: int = 128) -> str:
    """The image where the latent is strongest (rank 0) and following ones, with where in it."""
    more = f"&dataset={dataset_id}" if dataset_id else ""
    return f"{PREFIX}/latents/{sae_id}/{latent}/{rank}?size={size}{more}"


async def _uploaded(request: Request) -> Response:
    return await _answer(request, partial(_read_uploaded, image=request.path_params["image"]))


async def _sample(request: Request) -> Response:
    path = request.path_params
    return await _answer(request, partial(_read_sample, dataset=path["dataset"], sample=path["sample"]))


async def _example(request: Request) -> Response:
    path = request.path_params
    read = partial(
        _read_example,
        login=request.cookies.get(COOKIE, ""),
        by=request.query_params.get("by", "max"),
        sae=path["sae"],
        latent=path["latent"],
        rank=path["rank"],
        dataset=request.query_params.get("dataset"),
    )
    return await _answer(request, read)


ROUTES = [
    Route(f"{PREFIX}/images/{{image}}", _uploaded),
    Route(f"{PREFIX}/datasets/{{dataset}}/{{sample:path}}", _sample),
    Route(f"{PREFIX}/latents/{{sae}}/{{latent:int}}/{{rank:int}}", _example),
]


async def _answer(request: Request, read: Callable[[Client], Image.Image]) -> Response:
    login = request.cookies.get(COOKIE, "")
    try:
        size = min(_SIZES, key=lambda s: abs(s - int(request.query_params.get("size", "192")[:6])))
    except ValueError:
        return Response("size is no whole number", 422)
    try:
        content = await asyncio.to_thread(_drawn, read, login, size)
    except Unauthenticated:
        return Response("log in", 401)
    except NotFound as error:
        return Response(str(error), 404)
    except FulcrumError as error:
        return Response(str(error), 502)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return Response("the image cannot be decoded", 422)
    return Response(content, media_type="image/webp", headers=_HEADERS)


def _drawn(read: Callable[[Client], Image.Image], login: str, size: int) -> bytes:
    if not login:
        raise Unauthenticated("nobody is logged in")
    picture = ImageOps.fit(read(client_of(login)), (size, size), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=88)
    return out.getvalue()


def _opened(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as found:
        return ImageOps.exif_transpose(found).convert("RGB")


def _read_uploaded(client: Client, image: str) -> Image.Image:
    return _opened(client.images.content(image))


def _read_sample(client: Client, dataset: str, sample: str) -> Image.Image:
    return _opened(client.datasets.thumbnail(dataset, sample))


def _read_example(
    client: Client, login: str, sae: str, latent: int, rank: int, by: str, dataset: str | None
) -> Image.Image:
    of, examples = _examples(login, sae, latent, by, dataset, int(time.time() // _KEPT_S))
    if rank >= len(examples):
        raise NotFound(f"latent {latent} has {len(examples)} examples")
    example = examples[rank]
    return heat_over(_opened(client.datasets.thumbnail(of, example)), example.heatmap)


@lru_cache(maxsize=4096)
def _examples(
    login: str, sae: str, latent: int, by: str, dataset: str | None, period: int
) -> tuple[str, tuple[TopImage, ...]]:
    """Of which data set, and which: a page asks for all images of a card at once, and this is their one answer."""
    client = client_of(login)
    of = dataset or next(iter(client.latents.descriptions(sae)), None)
    if of is None:
        raise NotFound("this SAE was not described yet")
    name = of if isinstance(of, str) else of.dataset_id
    return name, client.latents.top_images(
        sae, latent, by="mean" if by == "mean" else "max", n=16, dataset=name
    )


def heat_over(picture: Image.Image, heatmap: tuple[tuple[float, ...], ...]) -> Image.Image:
    """The picture, dimmed but where the latent fires, smoothly over the patches."""
    side = min(picture.size)
    square = ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)
    top = max((v for row in heatmap for v in row), default=0.0)
    if top <= 0:
        return square
    values = bytes(round(255 * max(0.0, v) / top) for row in heatmap for v in row)
    mask = Image.frombytes("L", (len(heatmap[0]), len(heatmap)), values)
    mask = mask.resize((side, side), Image.Resampling.BICUBIC)
    dim = Image.eval(mask, lambda v: round(0.55 * (255 - v)))  # dark where it is silent
    shown = Image.composite(Image.new("RGB", square.size, (12, 16, 28)), square, dim)
    glow = Image.eval(mask, lambda v: round(0.3 * v))
    return Image.composite(Image.new("RGB", square.size, (255, 122, 0)), shown, glow)
