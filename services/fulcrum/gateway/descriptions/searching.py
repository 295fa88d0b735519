"""Latents by words and by image: the question goes through the model, the answer comes from the description."""

import numpy as np

from fulcrum.domain.concepts import LatentHit
from fulcrum.domain.errors import InvalidRequest, UnknownImage
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import run_in_thread
from fulcrum.gateway.descriptions import service
from fulcrum.gateway.descriptions.reading import ConceptFiles
from fulcrum.gateway.descriptions.schemas import LatentSearch
from fulcrum.gateway.loading import Loads
from fulcrum.gateway.questions import About, ask
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.rpc.images import ImageHash
from fulcrum.science.concepts.search import search_by_image, search_by_words
from fulcrum.science.concepts.vocabulary import VocabularyEmbeddings
from fulcrum.store.database import Store


async def search(
    store: Store,
    files: ConceptFiles,
    engine: AsyncRemoteEngine,
    loads: Loads,
    asker: Asker,
    sae_id: str,
    body: LatentSearch,
) -> list[LatentHit]:
    """Best first. Raises UnknownSae, UnknownDescription, UnknownImage, InvalidPrompt and what the engine raises."""
    if (body.text is None) == (body.image_id is None):
        raise InvalidRequest("search by text or by image_id: give one of them")
    about = await run_in_thread(service.described, store, files, asker, sae_id, body.dataset_id)
    has = about.columns.has_embedding
    latents, embeddings = about.columns["latents"][has], about.columns["embeddings"][has]
    images = [] if body.image_id is None else [body.image_id]
    subject = await ask(store, loads, asker, About(images, sae_id=sae_id, stored=False))
    if body.text is not None:
        templates = about.columns.found_in.templates
        texts = [t.replace("{}", body.text) for t in templates] + [t.replace("{}", "") for t in templates]
        answered = await engine.encode_texts(subject.model.ref, texts, user=asker.user.id)
        vectors = np.asarray(answered.value)
        n = len(templates)
        # The measure by which latents were labelled, so that a search for a label finds its latents first.
        words = VocabularyEmbeddings((body.text,), templates, vectors[:n].reshape(1, n, -1), vectors[n:])
        found = search_by_words(words.directions()[0], embeddings, latents, body.n)
        return service.hits(about, found.latents, found.scores)
    if not subject.images:
        raise UnknownImage(f"no image with the id {body.image_id!r}")
    image = ImageHash(subject.image.sha256)
    if body.by == "embedding":
        encoded = await engine.encode_images(subject.model.ref, [image], user=asker.user.id)
        found = search_by_words(np.asarray(encoded.value)[0], embeddings, latents, body.n)
        return service.hits(about, found.latents, found.scores)
    tokens = (await engine.encode_latents(subject.model.ref, subject.source, image, user=asker.user.id)).value
    active, place = np.unique(tokens.latents, return_inverse=True)
    largest = np.zeros(len(active))
    np.maximum.at(largest, place, tokens.values)
    typical = np.zeros(about.columns.found_in.d_sae)
    typical[about.columns["latents"]] = about.columns["p99"]
    strongest = search_by_image(active, largest, typical, body.n)
    return service.hits(about, strongest.latents, strongest.scores)
