"""The page of the gallery, without what a run writes into it."""

from string import Template

PAGE = Template("""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --ink: #1a1e26; --soft: #576070;
  --edge: #dfe3e9; --line: #2f5bd8; --tint: #e4ebff; --warn: #a4421a }
@media (prefers-color-scheme: dark) { :root { --page: #0f1217; --card: #181c23; --ink: #e8ebf0;
  --soft: #9ca6b5; --edge: #2a303a; --line: #83a8ff; --tint: #24335a; --warn: #f0a07a } }
* { box-sizing: border-box; margin: 0 }
body { margin: auto; padding: 2.5rem 1.25rem; max-width: 72rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
h1 { font-size: 2.25rem; line-height: 1.2 } h2 { font-size: 1.25rem; margin: 3rem 0 1rem }
p, dt { color: var(--soft) } p, dt, figcaption, table, summary { font-size: .875rem }
code, pre { font: .8125rem/1.5 ui-monospace, monospace; white-space: pre-wrap }
dl, figure, details, .scroll, .empty { background: var(--card); border: 1px solid var(--edge);
  border-radius: .75rem; overflow: hidden } figure, details { padding: 1rem }
details, .empty { margin-top: 3rem } .empty { padding: 4rem 1rem; text-align: center }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); margin: 1.5rem 0 1rem }
dl div { padding: .75rem 1rem; box-shadow: 1px 1px var(--edge) } dd { font-weight: 600 }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 45%), 1fr)); gap: 1rem }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)) }
.wide figcaption { display: flex; justify-content: space-between; gap: 1rem }
.newest { grid-column: 1 / -1; justify-self: center; width: min(100%, 85vh * var(--ratio)) }
.newest p { display: flex; justify-content: space-around }
img, svg { display: block; width: 100%; height: auto; margin: .5rem 0 }
text { font-size: 11px; fill: var(--soft); text-anchor: end } .first { text-anchor: start }
path { fill: none; stroke: var(--line); stroke-linejoin: round; stroke-linecap: round }
.level { stroke: var(--edge) } .raw { opacity: .3 } .smooth { stroke-width: 2 } .note { color: var(--warn) }
.scroll { overflow: auto; max-height: 32rem; margin-bottom: .75rem }
table { border-spacing: 0; width: 100%; white-space: nowrap } th { background: var(--card) }
th, td { padding: .5rem .75rem; text-align: right; border-bottom: 1px solid var(--edge) }
th[colspan] { text-align: center } thead { position: sticky; top: 0; z-index: 1; color: var(--soft) }
tbody th { position: sticky; left: 0 } .won { background: var(--tint) }
</style></head><body><header>$header</header><main>$body</main></body></html>""")
