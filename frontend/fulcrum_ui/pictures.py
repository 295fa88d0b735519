"""Routes for images, beside the script: small, cached by the browser, and only with the visitor's own login.

So a page sends addresses, images load when they come into view, and a slider sends no image again.
"""

import asyncio
import io
from collections.abc import Callable
from functools import lru_cache, partial
from urllib.parse import quote, urlencode

from PIL import Image, ImageOps, UnidentifiedImageError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fulcrum.client import Client
from fulcrum.domain.concepts import TopImage
from fulcrum.domain.errors import FulcrumError, NotFound, Unauthenticated
from fulcrum.domain.models import ResizeMode
from fulcrum_ui.visitor import COOKIE, client_of

PREFIX = "/pictures"
_SMALL = 256  # the longer side of the gateway's thumbnails
_SIZES = (64, 96, 128, 192, 256, 384, 512, 768)
# By the cookie: who logs in after somebody else in the same browser sees none of their images.
_HEADERS = {"Cache-Control": "private, max-age=86400", "Vary": "Cookie", "X-Content-Type-Options": "nosniff"}


def image_url(image_id: str, size: int = 512, view: ResizeMode = "shortest") -> str:
    """An uploaded image as the square that a model with this `view` sees."""
    return f"{PREFIX}/images/{image_id}?size={size}&view={view}"


def sample_url(dataset_id: str, sample: str, digest: str | None, size: int = 192) -> str:
    """An image of a content of a data set."""
    query = urlencode({"size": size} | ({"digest": digest} if digest else {}))
    return f"{PREFIX}/datasets/{dataset_id}/{quote(sample, safe='')}?{query}"


def example_url(
    sae_id: str, latent: int, rank: int, example: TopImage, view: ResizeMode = "shortest", size: int = 128
) -> str:
    """`example` as the image where the latent is strongest (rank 0) and following ones, with where in it.

    Its content stands in the address, so that a browser keeps no image of an older one.
    """
    query = urlencode(
        {"size": size, "view": view, "dataset": example.dataset_id, "digest": example.dataset_digest}
    )
    return f"{PREFIX}/latents/{sae_id}/{latent}/{rank}?{query}"


async def _uploaded(request: Request) -> Response:
    try:
        small = _size(request) <= _SMALL
    except ValueError:
        small = True  # refused below
    return await _answer(request, partial(_read_uploaded, image=request.path_params["image"], small=small))


async def _sample(request: Request) -> Response:
    path = request.path_params
    read = partial(
        _read_sample,
        dataset=path["dataset"],
        sample=path["sample"],
        digest=request.query_params.get("digest"),
    )
    return await _answer(request, read)


async def _example(request: Request) -> Response:
    path = request.path_params
    read = partial(
        _read_example,
        login=request.cookies.get(COOKIE, ""),
        by=request.query_params.get("by", "max"),
        sae=path["sae"],
        latent=path["latent"],
        rank=path["rank"],
        dataset=request.query_params.get("dataset", ""),
        digest=request.query_params.get("digest", ""),
        view=request.query_params.get("view", "shortest"),
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
        size = _size(request)
    except ValueError:
        return Response("size is no whole number", 422)
    try:
        view = request.query_params.get("view", "shortest")
        content = await asyncio.to_thread(_drawn, read, login, size, view)
    except Unauthenticated:
        return Response("log in", 401)
    except NotFound as error:
        return Response(str(error), 404)
    except FulcrumError as error:
        return Response(str(error), 502)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return Response("the image cannot be decoded", 422)
    return Response(content, media_type="image/webp", headers=_HEADERS)


def _size(request: Request) -> int:
    """The size that is made and lies nearest to what was asked for. Raises ValueError."""
    wanted = int(request.query_params.get("size", "192")[:6])
    return min(_SIZES, key=lambda size: abs(size - wanted))


def _drawn(read: Callable[[Client], Image.Image], login: str, size: int, view: str) -> bytes:
    if not login:
        raise Unauthenticated("nobody is logged in")
    picture = seen(read(client_of(login)), view).resize((size, size), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=88)
    return out.getvalue()


def _opened(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as found:
        return ImageOps.exif_transpose(found).convert("RGB")


def _read_uploaded(client: Client, image: str, small: bool) -> Image.Image:
    # The whole file only where its pixels are wanted.
    return _opened(client.images.thumbnail(image) if small else client.images.content(image))


def _read_sample(client: Client, dataset: str, sample: str, digest: str | None) -> Image.Image:
    return _opened(client.datasets.thumbnail(dataset, sample, digest=digest))


def _read_example(
    client: Client,
    login: str,
    sae: str,
    latent: int,
    rank: int,
    by: str,
    dataset: str,
    digest: str,
    view: str,
) -> Image.Image:
    examples = _examples(login, sae, latent, by, dataset, digest)
    if rank >= len(examples):
        raise NotFound(f"latent {latent} has {len(examples)} examples")
    example = examples[rank]
    return heat_over(seen(_opened(client.datasets.thumbnail(dataset, example)), view), example.heatmap)


@lru_cache(maxsize=4096)
def _examples(login: str, sae: str, latent: int, by: str, dataset: str, digest: str) -> tuple[TopImage, ...]:
    """A page asks for all images of a card at once, and this is their one answer."""
    found = client_of(login).latents.top_images(
        sae, latent, by="mean" if by == "mean" else "max", n=16, dataset=dataset
    )
    if any(example.dataset_digest != digest for example in found):
        raise NotFound("these examples are of another content of the data set: load the page again")
    return found


def seen(picture: Image.Image, view: str) -> Image.Image:
    """The square that a model sees, as large as the picture gives it; patches lie in it as in the model's grid."""
    width, height = picture.size
    if view == "squash":
        side = max(width, height)
        return picture.resize((side, side), Image.Resampling.BICUBIC)
    if view == "longest":
        side = max(width, height)
        return ImageOps.pad(picture, (side, side), Image.Resampling.BICUBIC)
    side = min(width, height)
    return ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)


def heat_over(picture: Image.Image, heatmap: tuple[tuple[float, ...], ...]) -> Image.Image:
    """A square picture, dimmed but where the latent fires, smoothly over the patches."""
    square, side = picture, picture.width
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
