"""Render a report as one HTML page that loads nothing from outside."""

from __future__ import annotations

from html import escape

from graphmert.report.blocks import (
    Block,
    CalibrationPlot,
    Code,
    Funnel,
    Intervals,
    LossCurves,
    Paragraph,
    Report,
    Sample,
    Samples,
    Stage,
    SweepPlot,
    Table,
)
from graphmert.report.charts import (
    COLOURS,
    calibration_chart,
    intervals_chart,
    loss_chart,
    sweep_chart,
)

_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --soft: #52606d; --rule: #e4e7eb; --paper: #fff;
  --wash: #f7f9fa; --green: #0b6e4f; --head: #fde68a; --tail: #bfdbfe; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 40px 28px 72px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 48px 0 12px; padding-top: 14px; border-top: 1px solid var(--rule); }
h3 { font-size: 15px; margin: 26px 0 10px; }
p { margin: 0 0 12px; max-width: 75ch; }
.lead { font-size: 17px; color: var(--soft); }
nav { margin: 18px 0 0; font-size: 14px; display: flex; flex-wrap: wrap; gap: 2px 16px; }
nav a { color: var(--green); text-decoration: none; }
nav a:hover { text-decoration: underline; }
.facts { display: flex; flex-wrap: wrap; gap: 10px; margin: 22px 0 0; padding: 0; }
.facts div { background: var(--wash); border: 1px solid var(--rule); border-radius: 8px;
  padding: 10px 16px; min-width: 128px; }
.facts dt { font-size: 13px; color: var(--soft); }
.facts dd { margin: 0; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: 0 0 20px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); vertical-align: bottom; }
th, td { padding: 6px 20px 6px 0; border-bottom: 1px solid var(--rule); }
td:first-child { min-width: 140px; }
td { vertical-align: top; }
.num { text-align: right; padding: 6px 0 6px 20px; white-space: nowrap; }
.num:first-child { padding-left: 0; min-width: 0; text-align: left; }
th.num { white-space: normal; }
tr.strong td { font-weight: 600; }
.note { font-size: 13px; color: var(--soft); margin: -12px 0 22px; max-width: 90ch; }
svg { max-width: 100%; height: auto; display: block; margin: 6px 0 14px; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
.key { font-size: 13px; color: var(--soft); margin: 0 0 14px; }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 5px;
  margin: 0 5px 0 0; }
.key span { margin-right: 16px; }
.stage { display: grid; grid-template-columns: 240px 1fr 170px; gap: 4px 16px;
  align-items: center; padding: 8px 0 6px; }
.stage + .stage, details + .stage { border-top: 1px solid var(--rule); }
.bar { height: 12px; background: #f3d9cd; border-radius: 3px; overflow: hidden; }
.bar b { display: block; height: 100%; background: var(--green); }
.count { text-align: right; font-size: 14px; font-variant-numeric: tabular-nums; }
details { margin: 0 0 10px; font-size: 14px; }
summary { cursor: pointer; color: var(--soft); font-size: 13px; }
details ul { margin: 6px 0 6px 18px; padding: 0; }
details ul ul { color: var(--soft); font-size: 13px; }
.panels { display: flex; flex-wrap: wrap; gap: 8px 28px; }
figure { margin: 0; max-width: 100%; }
figcaption { font-size: 14px; font-weight: 600; }
.sample { border: 1px solid var(--rule); border-radius: 8px; padding: 10px 14px; margin: 0 0 10px; }
.sample .triple { margin: 0; max-width: none; }
.sample .relation { color: var(--green); font-weight: 600; margin: 0 6px; white-space: nowrap; }
.sample .sentence { margin: 6px 0 4px; max-width: none; }
.sample .from { margin: 0; font-size: 13px; color: var(--soft); overflow-wrap: anywhere; }
mark { background: none; color: inherit; border-radius: 3px; padding: 1px 0; }
mark.head { background: var(--head); }
mark.tail { background: var(--tail); }
mark.both { background: linear-gradient(var(--head) 50%, var(--tail) 50%); }
.label { font-size: 12px; border-radius: 9px; padding: 1px 8px; margin-left: 6px;
  background: #e3f4ec; color: var(--green); white-space: nowrap; }
.label.inferred { background: #f3eefc; color: #6d28d9; }
pre { background: var(--wash); border: 1px solid var(--rule); border-radius: 8px;
  padding: 14px 16px; overflow-x: auto; font: 13px/1.5 ui-monospace, Menlo, monospace; }
td { overflow-wrap: break-word; }
@media (max-width: 640px) { .stage { grid-template-columns: 1fr; } .count { text-align: left; } }
@media print { nav { display: none; } details > * { display: block; } }
"""


def render_page(report: Report) -> str:
    """Return the page. All text from the run is escaped; there are no scripts."""
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in report.sections)
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in report.facts
    )
    sections = "\n".join(
        f'<section id="{section.anchor}">\n<h2>{escape(section.title)}</h2>\n'
        + "\n".join(_block(block) for block in section.blocks)
        + "\n</section>"
        for section in report.sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(report.title)}</h1>\n<p class="lead">{escape(report.lead)}</p>\n'
        f'<dl class="facts">{facts}</dl>\n<nav>{links}</nav>\n{sections}\n'
        "</main>\n</body>\n</html>\n"
    )


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return f"<p>{escape(block.text)}</p>"
        case Table():
            return _table(block)
        case Funnel():
            return "\n".join(_stage(stage) for stage in block.stages)
        case Intervals():
            return f"<h3>{escape(block.title)}</h3>\n{intervals_chart(block)}\n{_system_key(block)}"
        case LossCurves():
            figures = "".join(
                f"<figure><figcaption>{escape(panel.title)}</figcaption>{loss_chart(panel)}</figure>"
                for panel in block.panels
            )
            return f'<div class="panels">{figures}</div>'
        case CalibrationPlot():
            return calibration_chart(block)
        case SweepPlot():
            return sweep_chart(block)
        case Samples():
            cards = "\n".join(_sample(sample) for sample in block.samples)
            return f"<h3>{escape(block.title)}</h3>\n{cards}"
        case Code():
            return f"<pre>{escape(block.text)}</pre>"


def _table(table: Table) -> str:
    numeric, strong = ' class="num"', ' class="strong"'

    def cells(row: tuple[str, ...], tag: str) -> str:
        return "".join(
            f"<{tag}{numeric if column >= table.n_text else ''}>{escape(cell)}</{tag}>"
            for column, cell in enumerate(row)
        )

    body = "\n".join(
        f"<tr{strong if index in table.strong else ''}>{cells(row, 'td')}</tr>"
        for index, row in enumerate(table.rows)
    )
    note = f'\n<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll"><table>\n<thead><tr>{cells(table.columns, "th")}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>{note}"
    )


def _stage(stage: Stage) -> str:
    share = 100 * stage.n_kept / stage.n_offered if stage.n_offered else 0
    line = (
        f'<div class="stage"><div>{escape(stage.name)}</div>'
        f'<div class="bar"><b style="width:{share:.2f}%"></b></div>'
        f'<div class="count">{stage.n_offered:,} → {stage.n_kept:,}</div></div>'
    )
    if not stage.reasons:
        return line
    items = ""
    for reason in stage.reasons:
        examples = "".join(f"<li>{escape(example)}</li>" for example in reason.examples)
        nested = f"<ul>{examples}</ul>" if examples else ""
        items += f"<li>{reason.n:,} · {escape(reason.text)}{nested}</li>"
    summary = f"<summary>{stage.n_left_out:,} left out</summary>"
    return f"{line}\n<details>{summary}<ul>{items}</ul></details>"


def _sample(sample: Sample) -> str:
    labels = "".join(
        f'<span class="label {escape(text)}">{escape(text)}</span>' for text in sample.labels
    )
    sentence = ""
    for segment in sample.segments:
        text = escape(segment.text)
        kinds = {(True, True): "both", (True, False): "head", (False, True): "tail"}
        kind = kinds.get((segment.in_head, segment.in_tail))
        sentence += f'<mark class="{kind}">{text}</mark>' if kind else text
    pieces = "piece" if sample.n_evidence == 1 else "pieces"
    origin = f" · {escape(sample.document)}" if sample.document else ""
    return (
        f'<article class="sample"><p class="triple"><mark class="head">{escape(sample.head)}</mark>'
        f'<span class="relation">{escape(sample.relation)}</span>'
        f'<mark class="tail">{escape(sample.tail)}</mark>{labels}</p>'
        + (f'<p class="sentence">{sentence}</p>' if sentence else "")
        + f'<p class="from">score {sample.score:.3f} · {sample.n_evidence:,} {pieces} of evidence'
        f"{origin}</p></article>"
    )


def _system_key(block: Intervals) -> str:
    words = {"main": block.main, "trained": "trained", "untrained": "untrained"}
    items = "".join(
        f'<span><i style="background:{COLOURS[kind]}"></i>{escape(text)}</span>'
        for kind, text in words.items()
    )
    return f'<p class="key">{items}</p>'
