"""The look of what only the ImageNet page has: wide tables side by side with published numbers, films, curves.

Decided here: in a wide table the rows' headers stay in sight while the rest scrolls, and a line sets each quantity off
from the next. A bar without a chance line has no dotted mark.
"""

STYLE = """
.muted { color: var(--muted); }
.limit {
  border-left: 3px solid var(--accent); padding: .1rem 0 .1rem .9rem; margin: 0 0 1rem; max-width: 46rem;
}
.bar.free::after { content: none; }
.groups th { border-bottom: 0; padding-bottom: 0; color: var(--ink); }
.groups td { border-bottom: 0; padding: 0; }
.wide { font-size: .9rem; }
.wide td, .wide th { padding-right: .6rem; }
.wide thead th { font-size: .76rem; }
.wide td { white-space: nowrap; }
.wide th:first-child, .wide .groups td:first-child {
  position: sticky; left: 0; z-index: 1; background: var(--card); min-width: 7.4rem;
}
.wide .bar { width: 4.6rem; }
.dense { font-size: .84rem; }
.dense td, .dense th { padding-right: .35rem; }
.dense .bar { width: 4rem; }
.dense tbody th { max-width: 8rem; }
.wide tbody th { font-size: .88rem; }
.wide small, .heroes small { display: block; font-size: .75rem; color: var(--muted); }
td small.long { white-space: normal; min-width: 12rem; }
.small td, .small th { padding-top: .2rem; padding-bottom: .2rem; }
.variations thead img { width: 4rem; border-radius: .3rem; margin-bottom: .35rem; image-rendering: pixelated; }
.variations thead th { min-width: 5.2rem; max-width: 6.4rem; }
.variations thead th:not(:first-child) { vertical-align: top; }
.heroes dd.number { margin-top: .15rem; }
.heroes dd.undecided { font-size: 1.6rem; font-weight: 500; }
.films { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 16rem)); gap: 1rem; }
.films img { width: 100%; }
.curves { overflow-x: auto; }
.curves img { min-width: 40rem; }
.examples th img { width: 4.2rem; height: auto; max-width: none; margin-bottom: .25rem; }
.examples th small { font-size: .72rem; }
.examples td b { font-weight: 500; font-size: .85rem; }
@media (max-width: 40rem) {
  .wide { font-size: .82rem; }
  .wide th:first-child, .wide .groups td:first-child { min-width: 6rem; max-width: 6.6rem; }
}
"""
