"""A validation as one HTML file for paper and mail: no script, nothing from elsewhere."""

from html import escape
from typing import Any

from fulcrum.domain.evaluations import Evaluation
from fulcrum_ui.parts.words import number, p_value, percent, signed

_STYLE = """
body { font: 11pt/1.45 system-ui, sans-serif; color: #1b2333; max-width: 18cm; margin: 1.2cm auto; }
h1 { font-size: 17pt; margin: 0 0 0.2em; } h2 { font-size: 12.5pt; margin: 1.4em 0 0.4em; }
table { border-collapse: collapse; width: 100%; font-size: 9.5pt; } td, th { text-align: left; padding: 3px 7px; border-bottom: 1px solid #dde2ec; }
td.r, th.r { text-align: right; font-variant-numeric: tabular-nums; } .quiet { color: #667085; font-size: 9.5pt; }
.verdict { border-left: 4px solid #2f6fed; padding: 6px 12px; background: #f4f6fa; font-weight: 600; margin: 0.6em 0; }
@media print { body { margin: 0; } h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""


def printable(found: Evaluation, name: str, dataset: str) -> str:
    """The report as a page."""
    record, report = found.record, found.report
    stale = "" if not found.changes else "<p class='verdict'>Stale: inputs changed since.</p>"
    parts = [
        f"<h1>{escape(name)}</h1><p class='quiet'>Version {record.number} on {escape(dataset)}, {escape(record.split)}, {record.created_at:%Y-%m-%d %H:%M} UTC</p>",
        stale,
        f"<p class='verdict'>{escape((record.badge or record.verdict or '').replace('_', ' '))}</p>",
        _numbers(report),
        _gates(report),
        _slices(report),
        _provenance(report),
    ]
    return f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(name)}</title><style>{_STYLE}</style><body>{''.join(parts)}</body></html>"


def _numbers(report: dict[str, Any]) -> str:
    rows = []
    for title, part in (
        ("Failure mode", report.get("target")),
        ("All images", report["overall"]),
        ("All others", report.get("unaffected")),
    ):
        if part:
            bound = (part.get("nfr_bound") or {}).get("upper")
            rows.append(
                f"<tr><td>{title}</td><td class='r'>{number(part['n'])}</td><td class='r'>{percent(part['accuracy_before'])}</td><td class='r'>{percent(part['accuracy_after'])}</td>"
                f"<td class='r'>{part['fixed']}</td><td class='r'>{part['broken']}</td><td class='r'>{percent(bound, 2)}</td><td class='r'>{p_value(part.get('p'))}</td></tr>"
            )
    head = "".join(
        f"<th class='r'>{h}</th>"
        for h in ("images", "before", "after", "fixed", "broken", "broken at most", "McNemar")
    )
    return f"<h2>Before and after</h2><table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _gates(report: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(g['state']))}</td><td>{escape(str(g['name']))}</td><td>{escape(str(g['reason']))}</td></tr>"
        for g in report["gates"]
    )
    left_out = "".join(
        f"<p class='quiet'>Not asked: {escape(str(x))}</p>" for x in report.get("gates_left_out") or ()
    )
    return f"<h2>Gates</h2><table>{rows}</table>{left_out}"


def _slices(report: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(s['group']['name'])}</td><td class='r'>{s['n']}</td><td class='r'>{percent(s['accuracy_before'])}</td><td class='r'>{percent(s['accuracy_after'])}</td>"
        f"<td class='r'>{signed(100 * s['net'], 1)}</td><td class='r'>{s['broken']}</td><td class='r'>{'' if s.get('q') is None else format(s['q'], '.2g')}</td></tr>"
        for s in sorted(report.get("slices") or (), key=lambda s: s["net"])[:30]
    )
    if not rows:
        return ""
    head = "".join(
        f"<th class='r'>{h}</th>" for h in ("images", "before", "after", "net, points", "broken", "q")
    )
    return f"<h2>Slices, worst first</h2><table><tr><th></th>{head}</tr>{rows}</table>"


def _provenance(report: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(k))}</td><td>{escape(str(v)[:200])}</td></tr>"
        for k, v in report["provenance"].items()
        if k not in ("class_names", "templates")
    )
    return f"<h2>Provenance</h2><table>{rows}</table>"
