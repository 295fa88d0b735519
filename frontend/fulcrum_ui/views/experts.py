"""Experts: which units know a concept, where in the model they lie, and whether it orders concepts as people do."""

from itertools import islice

import pandas as pd
import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import FulcrumError, InvalidInput, NotFound
from fulcrum.domain.experts import ConceptStructure, ConceptStructures, ExpertRule, Experts
from fulcrum.domain.records import ExpertsRecord
from fulcrum_ui import charts, go, troubles
from fulcrum_ui.parts import concept_editor, expert_curve, expert_question, expert_steering, keeping
from fulcrum_ui.parts.dendrogram import links_of
from fulcrum_ui.parts.words import ago, number, p_value, plain, shared_beginning
from fulcrum_ui.visitor import SHORT_S, remembered, visitor

_SHOWN_UNITS = 50
_MOST_SEARCHES = 400


def page() -> None:
    """The page."""
    client = visitor().client
    chosen = st.query_params.get("experts")
    if chosen:
        _one(client, chosen)
        return
    models = [m for m in client.models.list() if m.state == "ready"]
    if st.query_params.get("draft") and concept_editor.kept() is not None:
        if st.button("All searches", icon=":material/arrow_back:", type="tertiary"):
            go.write({})
            st.rerun()
        concept_editor.edit(client, models, _searches(client))
        return
    if st.query_params.get("draft"):
        go.write({})  # of another visit
        st.warning(
            "What was written here is forgotten with the page that it was written on. A downloaded file brings it back."
        )
    st.title("Experts", anchor=False)
    st.caption(
        "A unit is an expert of a concept when its response tells images (or sentences) of the concept from others. Always beside random weights."
    )
    found = _searches(client)
    left, right = st.columns([5, 4], gap="large")
    with right:
        st.subheader("Searches", anchor=False)
        if not found:
            st.caption("None yet.")
        for record in found[:40]:
            expert_question.row(client, record)
    with left:
        expert_question.new(client, models, found)


def _one(client: Client, search: str) -> None:
    if st.button("All searches", icon=":material/arrow_back:", type="tertiary"):
        go.write({})
        st.rerun()
    try:
        found: Experts = remembered(("experts", search), lambda: client.experts.get(search), for_s=SHORT_S)
    except NotFound:
        st.warning("This search is not here (any more).")
        return
    record = found.record
    st.title(plain(record.name) or "Experts", anchor=False)
    units = sum(layer.n_units for layer in found.layers)
    st.caption(
        f"{len(found.concepts)} concepts, {number(units)} units in {len(found.layers)} layers ({expert_question.units_of(record)}) · {ago(record.created_at)}"
    )
    if not found.one_base_rate:
        st.caption(
            "The concepts have different base rates: their AP cannot be compared by a threshold, their best units can."
        )
    tabs = keeping.tabs(("Concepts", "Structure", "People", "Stability"), "part")
    for tab, part in zip(tabs, (_concepts, _structure, _people, _stability), strict=True):
        with tab:
            if tab.open:
                try:
                    part(client, found)
                except FulcrumError as error:
                    troubles.show(error, part.__name__)


def _concepts(client: Client, found: Experts) -> None:
    table = pd.DataFrame(
        [
            {
                "concept": c.name,
                "domain": c.domain,
                "examples": c.n_pos,
                "others": c.n_neg,
                "base rate": c.base_rate,
                "best AP": c.best_ap,
                "random weights": c.control_best_ap,
                "best AUROC": c.best_auroc,
                "layer": c.best_layer,
                "unit": c.best_unit,
            }
            for c in found.concepts
        ]
    ).sort_values("best AP", ascending=False)
    event = st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        height=min(380, 38 + 35 * len(table)),
        on_select="rerun",
        selection_mode="single-row",
        key="experts-table",
        column_config={
            c: st.column_config.NumberColumn(format="%.3f")
            for c in ("base rate", "best AP", "random weights", "best AUROC")
        },
    )
    rows = event.selection.rows if event else []
    names = list(table.concept)
    concept = st.selectbox("Concept", names, rows[0] if rows else 0, key=f"experts-concept-{rows}")
    left, right = st.columns([1, 1], gap="large")
    with left:
        _units(client, found, concept)
        expert_steering.panel(client, found, concept)
    with right:
        _layers(client, found, concept)


def _units(client: Client, found: Experts, concept: str) -> None:
    units = remembered(
        ("experts", found.record.id, "units", concept),
        lambda: list(islice(client.experts.units(found.record, concept), _SHOWN_UNITS)),
        for_s=SHORT_S,  # labels of latents change
    )
    table = pd.DataFrame(
        [
            {
                "rank": u.rank,
                "layer": u.layer,
                "unit": u.unit,
                "label": u.label or "",
                "AP": u.ap,
                "AUROC": u.auroc,
                "on p50": u.on_p50,
                "on p90": u.on_p90,
                "off mean": u.off_mean,
            }
            for u in units
        ]
    )
    st.markdown(f"**The best {len(table)} units for {concept}**")
    st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        height=330,
        column_config={
            c: st.column_config.NumberColumn(format="%.3f")
            for c in ("AP", "AUROC", "on p50", "on p90", "off mean")
        },
    )
    charts.downloads_popover(table, f"experts-{concept}")
    if found.record.units == "latents" and units:
        best = units[0]
        sae = found.record.sae_id
        row = st.columns(2)
        with row[0]:
            go.link("concepts", f"Look at latent {best.unit}", icon="hub", sae=sae, latent=str(best.unit))
        with row[1]:
            go.link("debug", "Suppress it on the bench", icon="science", sae=sae, edits=f"{best.unit}:0")


def _layers(client: Client, found: Experts, concept: str) -> None:
    rule = _count_rule(found)
    if rule is not None:
        counts = {c.concept: c for c in client.experts.counts(found.record, rule)}
        mine = counts.get(concept)
        if mine is not None:
            words = f"AP of at least {rule.value:g}" if rule.rule == "tau" else f"the best {rule.value:g}"
            st.caption(
                f"**{mine.n_experts} experts** of {concept} by {words}; with random weights {mine.control}."
            )
        if len(found.layers) > 1:
            profile = client.experts.profile(found.record, concept, rule)
            shared = shared_beginning([s.layer for s in profile.layers])
            table = pd.DataFrame(
                [
                    {"layer": s.layer.removeprefix(shared), "experts": n, "weights": w}
                    for s in profile.layers
                    for n, w in ((s.n_experts, "trained"), (s.control_n_experts, "random"))
                ]
            )
            st.markdown("**Where they lie**" + (f" :gray[in {plain(shared.rstrip('.'))}]" if shared else ""))
            charts.show(charts.against_control(table, "layer", "experts"), table, f"layers-{concept}")
    spread = client.experts.distribution(found.record, concept)
    table = pd.DataFrame(
        [
            {"AP": (spread.edges[i] + spread.edges[i + 1]) / 2, "units": n, "weights": w}
            for w, values in (("trained", spread.counts), ("random", spread.control))
            for i, n in enumerate(values)
        ]
    )
    st.markdown("**Units by AP**")
    charts.show(
        charts.ap_distribution(table, spread.base_rate),
        table,
        f"ap-{concept}",
        caption=f"Dashed: the base rate {spread.base_rate:.3f}, the AP of a unit that knows nothing.",
    )


def _count_rule(found: Experts) -> ExpertRule | None:
    """Top-k or a threshold, with live counts."""
    line = st.columns([2, 3], vertical_alignment="bottom")
    kinds = ["Best k", "AP at least"] if found.one_base_rate else ["Best k"]
    kind = line[0].segmented_control("Experts are", kinds, default=kinds[0], key="experts-rule")
    if kind == "AP at least":
        return ExpertRule("tau", line[1].slider("AP", 0.05, 0.99, 0.5, 0.01, key="experts-tau"))
    return ExpertRule("top_k", float(line[1].slider("k", 1, 500, 50, key="experts-k")))


def _structure(client: Client, found: Experts) -> None:
    rules = list(found.rules)
    if not rules:
        st.info("With one concept there is no structure.")
        return
    first = rules.index(found.shown_rule) if found.shown_rule in rules else 0
    rule = st.selectbox(
        "Concepts are compared by", rules, first, format_func=_rule_words, key="experts-structure-rule"
    )
    answer: ConceptStructures = remembered(
        ("experts", found.record.id, "structure", rule), lambda: client.experts.structure(found.record, rule)
    )
    options = {"experts": answer.experts, "random weights": answer.random_weights} | {
        b.of.replace("_", " "): b for b in answer.baselines
    }
    of = st.segmented_control(
        "Of", list(options), default="experts", key="experts-of", label_visibility="collapsed"
    )
    shown = options[of or "experts"]
    _summary(found, rule)
    left, right = st.columns(2, gap="large")
    names = list(answer.concepts)
    with left:
        table = pd.DataFrame(
            [
                {"a": names[i], "b": names[j], "similarity": v}
                for i, row in enumerate(shown.similarity)
                for j, v in enumerate(row)
            ]
        )
        charts.show(
            charts.similarity(table, [names[i] for i in shown.order]), table, f"similarity-{shown.of}"
        )
    with right:
        table = pd.DataFrame(
            {
                "concept": names,
                "domain": answer.domains,
                "x": shown.x,
                "y": shown.y,
                "cluster": shown.clusters,
            }
        )
        charts.show(
            charts.concept_map(table),
            table,
            f"concept-map-{shown.of}",
            caption=f"The plane keeps {100 * shown.map_share:.0f} % of squared distance.",
        )
    _dendrogram(names, shown)


def _dendrogram(names: list[str], shown: ConceptStructure) -> None:
    if not shown.linkage:
        return
    links, leaves = links_of(shown.linkage, shown.order, names)
    charts.show(charts.dendrogram(links, leaves), links, f"dendrogram-{shown.of}")


def _summary(found: Experts, rule: ExpertRule) -> None:
    rows = [
        {
            "of": s.of.replace("_", " "),
            "mean similarity": s.mean_similarity,
            "ARI with domains": s.agreement.ari if s.agreement else None,
            "within": s.agreement.within if s.agreement else None,
            "between": s.agreement.between if s.agreement else None,
        }
        for s in found.summaries
        if s.rule in (rule, None)
    ]
    if rows:
        st.dataframe(
            pd.DataFrame(rows),
            hide_index=True,
            width="stretch",
            column_config={
                c: st.column_config.NumberColumn(format="%.3f")
                for c in ("mean similarity", "ARI with domains", "within", "between")
            },
        )


def _rule_words(rule: ExpertRule) -> str:
    match rule.rule:
        case "top_k":
            return f"shared experts, the best {rule.value:g} of each"
        case "tau":
            return f"shared experts, AP at least {rule.value:g}"
        case "cosine_ap":
            return "AP of all units (cosine)"
        case _:
            return "AUROC of all units (cosine)"


def _people(client: Client, found: Experts) -> None:
    if not found.alignments:
        st.info(
            "No judgements of people came with this search: give ratings of pairs or triplets with `client.experts`, and the model is compared with them."
        )
        return
    for alignment in found.alignments:
        st.subheader(f"{alignment.name} ({number(alignment.n_used)} {alignment.kind})", anchor=False)
        rows = [
            {
                "of": c.of.replace("_", " "),
                "compared by": _rule_words(c.rule) if c.rule else "itself",
                "rho": c.rho,
                "low": c.ci_low,
                "high": c.ci_high,
                "Mantel": p_value(c.p_value),
                "pairs": c.n_pairs,
            }
            for c in alignment.correlations
        ]
        rows += [
            {
                "of": t.of.replace("_", " "),
                "compared by": _rule_words(t.rule) if t.rule else "itself",
                "accuracy": t.accuracy,
                "triplets": t.n_triplets,
            }
            for t in alignment.triplets
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch")
        for ceiling in alignment.ceilings:
            st.caption(f"Ceiling, {plain(ceiling.name.replace('_', ' '))}: {ceiling.value:.3f}")


def _stability(client: Client, found: Experts) -> None:
    others = [r for r in _searches(client) if r.id != found.record.id]
    if not others:
        st.info(
            "Search the same concepts again with other examples, another layer or another checkpoint, and compare the two here."
        )
        return
    _beside(client, found, others)
    expert_curve.checkpoints(client, found, others)


def _searches(client: Client) -> list[ExpertsRecord]:
    """Newest first; a widget that moves asks nothing again."""
    return remembered(
        ("searches",), lambda: list(islice(client.experts.list(), _MOST_SEARCHES)), for_s=SHORT_S
    )


def _beside(client: Client, found: Experts, others: list[ExpertsRecord]) -> None:
    other = st.selectbox(
        "Compare with",
        others,
        format_func=expert_question.search_words,
        key="experts-other",
    )
    try:
        answer = client.experts.stability(found.record, other)
    except InvalidInput as error:
        st.info(plain(str(error)))
        return
    if answer.mean_overlap is not None:
        st.markdown(
            f"The same concepts share **{number(answer.mean_overlap)}** of their experts (Jaccard), different ones {number(answer.different)}."
        )
        table = pd.DataFrame(
            [{"concept": o.concept, "overlap": o.overlap} for o in answer.overlaps]
        ).sort_values("overlap")
        charts.show(charts.overlaps(table), table, "stability")
    if answer.rho is not None:
        st.caption(f"Similarities of {answer.n_concepts} concepts agree with rho {number(answer.rho)}.")
