"""Concepts: what latents stand for."""

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, given, id_of, precondition
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.labels import LabelReview, ReviewDecision
from fulcrum.domain.records import ConceptRecord


class Concepts(Bound[Side]):
    """`client.concepts`: what latents stand for."""

    @listing(ConceptRecord)
    def list(
        self, sae: Identified | str, *, words: str | None = None, review: LabelReview | None = None
    ) -> Flow[None]:
        """Described latents of an SAE, newest label first; `words`: those with all of it in label or note.

        `review="proposed"`: labels that wait for somebody to confirm or reject them.
        """
        filters = given(q=words, review=review)
        yield from self._wire.pages(ConceptRecord, path("saes", id_of(sae), "concepts"), filters)

    @operation
    def labels(self, sae: Identified | str) -> Flow[dict[int, str]]:
        """The label of each labelled latent, for `Explanation.with_labels`."""
        found = yield from self._wire.everything(ConceptRecord, path("saes", id_of(sae), "concepts"))
        return {c.latent: c.label for c in found if c.label}

    @operation
    def get(self, sae: Identified | str, latent: int) -> Flow[ConceptRecord]:
        """What is recorded about a latent. Raises UnknownConcept."""
        return (yield from self._wire.ask(ConceptRecord, "GET", path("saes", id_of(sae), "concepts", latent)))

    @operation
    def put(
        self,
        sae: Identified | str,
        latent: int,
        label: str,
        *,
        note: str = "",
        expected: ConceptRecord | None = None,
    ) -> Flow[ConceptRecord]:
        """Names a latent; the name is proposed until a reviewer confirms it.

        With `expected`, only if nobody changed it since: StaleVersion otherwise.
        """
        return (
            yield from self._wire.ask(
                ConceptRecord,
                "PUT",
                path("saes", id_of(sae), "concepts", latent),
                json={"label": label, "note": note},
                if_match="*" if expected is None else precondition(expected),
            )
        )

    @operation
    def review(
        self,
        sae: Identified | str,
        latent: int,
        decision: ReviewDecision,
        *,
        note: str = "",
        expected: ConceptRecord | None = None,
    ) -> Flow[ConceptRecord]:
        """Confirms or rejects the label that a colleague proposed; rejecting brings the label before it back.

        With `expected`, only the label that you saw: StaleVersion otherwise. Raises ReviewerIsAuthor for your own,
        NothingToReview for one that does not wait, Forbidden without the role of a reviewer.
        """
        return (
            yield from self._wire.ask(
                ConceptRecord,
                "POST",
                path("saes", id_of(sae), "concepts", f"{int(latent)}:review"),
                json={"decision": decision, "note": note},
                if_match="*" if expected is None else precondition(expected),
            )
        )
