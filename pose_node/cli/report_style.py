"""The style sheet of the demo's report, light and dark."""

from __future__ import annotations

STYLE = """
:root { --page:#f5f6f8; --card:#fff; --ink:#171a1f; --soft:#667180; --rule:#e4e8ed;
  --blue:#2f6bd8; --good:#16855c; --warn:#d98a00; --bad:#d33a2c; --missed:#7a3fc0;
  --hidden:#a9b3c0; --empty:#dfe4ea; --shade:#eef1f5; }
@media (prefers-color-scheme: dark) { :root { --page:#0f1216; --card:#171b21; --ink:#e8ebef;
  --soft:#98a3b1; --rule:#2a313a; --blue:#6fa5ff; --good:#43c48f; --warn:#f2b144; --bad:#ff7868;
  --missed:#b48bf0; --hidden:#59636f; --empty:#2b323b; --shade:#1f252d; } }
* { box-sizing:border-box }
body { margin:0; background:var(--page); color:var(--ink);
  font:15px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif }
main { max-width:1120px; margin:0 auto; padding:40px 20px 64px }
.eyebrow { margin:0; color:var(--soft); font-size:13px; letter-spacing:.06em }
h1 { display:flex; flex-wrap:wrap; align-items:center; gap:10px 16px; margin:2px 0 6px;
  font-size:34px; line-height:1.2; letter-spacing:-.02em }
h2 { margin:0 0 14px; font-size:18px; letter-spacing:-.01em }
p { margin:10px 0 0; max-width:78ch }
.facts, section > p { color:var(--soft) }
section > p b { color:var(--ink) }
.pill { display:inline-block; padding:2px 11px; border-radius:99px; font-size:13px;
  font-weight:600; line-height:1.6; letter-spacing:0; white-space:nowrap; color:var(--tone);
  background:color-mix(in srgb, var(--tone) 13%, transparent) }
.pill.good { --tone:var(--good) } .pill.bad { --tone:var(--bad) }
.cards { display:grid; gap:14px; margin:24px 0 0;
  grid-template-columns:repeat(auto-fit, minmax(200px, 1fr)) }
.card, section { background:var(--card); border:1px solid var(--rule); border-radius:14px }
.card { display:flex; flex-direction:column; padding:16px 18px }
.card span { color:var(--soft); font-weight:600; font-size:13px }
.card strong { font-size:32px; line-height:1.3; letter-spacing:-.02em;
  font-variant-numeric:tabular-nums }
.card small { color:var(--soft); font-size:13px; line-height:1.4 }
section { margin-top:16px; padding:22px 24px }
.chart { overflow-x:auto }
svg { display:block; width:100%; height:auto }
svg text { font-size:12px; fill:var(--soft); font-variant-numeric:tabular-nums }
svg .label { font-weight:600 } svg .note { fill:var(--ink); paint-order:stroke;
  stroke:var(--card); stroke-width:4px; stroke-linejoin:round }
svg rect { shape-rendering:crispEdges }
path.grid { stroke:var(--rule) } path.base { stroke:var(--hidden) }
path.mark { stroke:var(--ink); stroke-dasharray:4 4; opacity:.55 }
.line { fill:none; stroke-width:1.8 } .line.even { stroke:var(--ink); opacity:.6 }
.line.one { stroke:var(--blue); opacity:.7; stroke-width:1.2 }
.dot { opacity:.85; stroke:var(--card); stroke-width:.7 }
rect.bar { fill:var(--blue); opacity:.8; stroke:var(--card) }
rect.seen { fill:var(--hidden); opacity:.75 } rect.shade { fill:var(--shade) }
.good { fill:var(--good) } .warn { fill:var(--warn) } .bad { fill:var(--bad) }
.missed { fill:var(--missed) } .hidden { fill:var(--hidden) } .empty { fill:var(--empty) }
.legend { display:flex; flex-wrap:wrap; gap:4px 20px; max-width:none; font-size:13px }
.legend i { display:inline-block; width:10px; height:10px; margin-right:7px; border-radius:3px }
i.good { background:var(--good) } i.warn { background:var(--warn) }
i.bad { background:var(--bad) } i.missed { background:var(--missed) }
i.hidden { background:var(--hidden) } i.empty { background:var(--empty) }
circle.even { fill:var(--ink) } circle.one { fill:var(--blue) }
i.even { background:var(--ink) } i.one { background:var(--blue) }
.pair { display:grid; gap:20px;
  grid-template-columns:repeat(auto-fit, minmax(min(100%, 380px), 1fr)) }
table { width:100%; border-collapse:collapse; font-variant-numeric:tabular-nums }
th { color:var(--soft); font-size:13px; font-weight:600; text-align:right }
th:first-child { text-align:left } th.wide { text-align:left }
th, td { padding:7px 12px 7px 0; border-bottom:1px solid var(--rule) }
tbody tr:last-child td { border-bottom:0 }
.n { text-align:right; white-space:nowrap } .wide { width:40%; padding-left:12px }
.share { height:9px; border-radius:3px; background:var(--blue); opacity:.8 }
.nothing { margin:0; padding:18px; border-radius:10px; background:var(--shade) }
.chart + .chart table { margin-top:14px } .pair .chart + .chart table { margin-top:0 }
.pictures { display:grid; gap:18px;
  grid-template-columns:repeat(auto-fill, minmax(min(100%, 300px), 1fr)) }
figure { margin:0 } img { display:block; width:100%; border-radius:10px }
figcaption { margin-top:6px; color:var(--soft); font-size:13px }
@media (max-width:600px) { main { padding:24px 12px 40px } section { padding:16px 14px }
  h1 { font-size:27px } .wide { display:none } }
@media print { section { break-inside:avoid } }
"""
