"""Never run: mypy reads it, and finds exactly the mistakes that are marked."""

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from fulcrum.client import (
    AsyncClient,
    AsyncStream,
    Client,
    DoseCurve,
    DosePoints,
    Explanation,
    Predictions,
    Scale,
    Steering,
    Stream,
    Suggestions,
)
from fulcrum.domain.records import CorrectionRecord, CorrectionVersion, ImageRecord, SaeRecord
from fulcrum.domain.results import Suggestion


def blocking(client: Client) -> None:
    why = client.explain("a.png", ["dog", "cat"])
    assert_type(why, Explanation)
    tried = client.steer(why, [Scale(1, 0.0)])
    assert_type(tried, Steering)
    assert_type(client.save_correction("less", tried), CorrectionRecord)
    assert_type(client.predict(["a.png", b""], ["dog"]), Predictions)
    assert_type(client.images.list(), Iterator[ImageRecord])
    assert_type(client.corrections.version("cor_1"), CorrectionVersion)
    assert_type(client.saes.wait("sae_1", timeout_s=3), SaeRecord)
    assert_type(client.sweep(why, 3), Stream[DosePoints, DoseCurve])
    assert_type(client.sweep(why, 3).result(), DoseCurve)
    assert_type(client.suggest(why, "cat"), Stream[Suggestion, Suggestions])
    for found in client.suggest(why, "cat"):
        assert_type(found, Suggestion)
    client.explain(3, ["dog"])  # type: ignore[arg-type]  # no image
    client.explain("a.png", ["dog"], metod="ablation")  # type: ignore[call-arg]  # misspelt
    client.images.get()  # type: ignore[call-arg]  # of nothing


async def awaiting(client: AsyncClient) -> None:
    why = await client.explain("a.png", ["dog", "cat"])
    assert_type(why, Explanation)
    assert_type(await client.images.get("img_1"), ImageRecord)
    assert_type(client.images.list(), AsyncIterator[ImageRecord])
    assert_type(client.sweep(why, 3), AsyncStream[DosePoints, DoseCurve])
    assert_type(await client.sweep(why, 3).result(), DoseCurve)
    async for found in client.suggest(why, "cat"):
        assert_type(found, Suggestion)
    print(client.images.get("img_1").width)  # type: ignore[attr-defined]  # forgotten await
