"""The look of a page: CSS that refers to nothing outside it.

Decided here: the reader's own system font; one accent; three cue colours that keep 3:1 against the page in light and
dark and are never the only carrier of a meaning; everything that can be wider than a phone scrolls by itself.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1c2026; --muted: #5b636e; --line: #dfe3e8;
  --track: #e9ecf0; --shade: #1c202640;
  --accent: #1f63b5; --shape: #1f63b5; --texture: #b3591d; --background: #1b7f63; --good: #14703f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1b1f25; --ink: #e2e7ee; --muted: #a0a9b5; --line: #323943;
    --track: #2a3038; --shade: #000000b0;
    --accent: #6fb0f5; --shape: #6fb0f5; --texture: #eba06a; --background: #58c9a4; --good: #6fd09a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
}
header, main, footer { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
footer { padding-bottom: 3rem; color: var(--muted); font-size: .875rem; }
h1 { font-size: clamp(1.6rem, 5vw, 2.25rem); line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { max-width: 46rem; margin: .5rem 0 1rem; }
p.muted, figcaption, caption, .note { color: var(--muted); font-size: .9rem; }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
  padding: 1.25rem 1.5rem 1.5rem; margin: 1.25rem 0;
}
.heroes { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1rem; margin: 1.5rem 0; }
.heroes div {
  background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 1rem 1.25rem;
  display: flex; flex-direction: column;
}
.heroes dt { color: var(--muted); font-size: .9rem; }
.heroes dd { margin: 0; }
.heroes dd.number { font-size: 2.4rem; line-height: 1.2; font-weight: 650; letter-spacing: -.02em; margin-top: auto; }
.heroes dd.detail { color: var(--muted); font-size: .875rem; }
.scroll {
  overflow-x: auto; margin: .75rem 0 1rem;
  /* A shade at the edge behind which columns wait: the covers move with the table, the shades stay. */
  background:
    linear-gradient(to right, var(--card) 1.5rem, transparent) left / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--card) 1.5rem, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) left / .9rem 100% no-repeat scroll,
    linear-gradient(to left, var(--shade), transparent) right / .9rem 100% no-repeat scroll;
}
.scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 .5rem; caption-side: top; }
th, td { text-align: left; vertical-align: top; padding: .55rem .75rem .55rem 0; border-bottom: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-size: .85rem; line-height: 1.3; color: var(--muted); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; min-width: 7.5rem; }
tbody tr:last-child > * { border-bottom: 0; }
td b { font-weight: 650; }
td small, th small, dd small { display: block; color: var(--muted); font-weight: 400; font-size: .8rem; }
td small { white-space: nowrap; }
.results td { min-width: 6.4rem; }
.cues td { min-width: 5.6rem; width: 24%; }
.settings td, .settings th { font-size: .9rem; padding-top: .3rem; padding-bottom: .3rem; }
.settings th { overflow-wrap: anywhere; }
.settings td { min-width: 6.5rem; }
.settings tbody th { font-weight: 400; min-width: 9rem; }
.bar {
  display: block; position: relative; height: .6rem; margin: .3rem 0 .2rem; border-radius: .2rem;
  background: var(--track); max-width: 15rem; --fill: var(--accent);
}
.bar i { display: block; height: 100%; width: var(--share); background: var(--fill); border-radius: .2rem; }
.bar::after {
  content: ""; position: absolute; left: var(--chance); top: -.18rem; bottom: -.18rem;
  border-left: 2px dotted var(--ink);
}
.shape { --fill: var(--shape); } .texture { --fill: var(--texture); } .background { --fill: var(--background); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1.25rem; }
section > :last-child, section > :last-child > :last-child { margin-bottom: 0; }
figure { margin: 0 0 1.25rem; }
figcaption { margin-top: .35rem; }
img { max-width: 100%; height: auto; display: block; }
img.pixels { image-rendering: pixelated; }
.sheet img { background: #fff; border-radius: .4rem; border: 1px solid var(--line); }
.examples table { width: auto; }
.examples th, .examples td { padding: .35rem .4rem .35rem 0; min-width: 3.9rem; }
.examples td small { font-size: .68rem; }
.examples th:first-child { position: sticky; left: 0; background: var(--card); min-width: 7.4rem; }
.examples img { width: 3.25rem; max-width: none; border-radius: .25rem; }
.examples .right b { color: var(--good); }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--accent); font-weight: 600; padding: .25rem 0; }
ul { padding-left: 1.2rem; max-width: 46rem; margin: .5rem 0 1rem; }
li { margin: .4rem 0; }
a { color: var(--accent); }
@media (max-width: 40rem) {
  header, main, footer { padding-left: .75rem; padding-right: .75rem; }
  section { padding: 1rem; }
  .heroes { grid-template-columns: 1fr 1fr; gap: .75rem; }
  .heroes div { padding: .75rem .9rem; }
  .heroes dd.number { font-size: 1.9rem; }
  .results, .cues { font-size: .85rem; }
  .results tbody th, .cues tbody th { min-width: 5.6rem; font-size: .8rem; }
  .results td, .cues td { min-width: 4.4rem; width: auto; }
  .results th, .results td, .cues th, .cues td { padding-right: .5rem; }
  .results thead th, .cues thead th { font-size: .78rem; }
  .results small { font-size: .72rem; }
}
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
