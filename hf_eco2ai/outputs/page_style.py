"""How the page looks, and the policy that lets a browser take that from it and nothing else."""

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; --ink: #1d2a24; --quiet: #5c6b63; --line: #d9e2dc;
  --ground: #f7faf8; --card: #fff; --green: #1c7c4a; --warn: #b3541e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6efe9; --quiet: #9db0a5; --line: #2c3a33;
    --ground: #111814; --card: #18211c; --green: #5ccb8f; --warn: #f0a35e; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1rem; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: auto; }
main.runs { max-width: 80rem; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
p { color: var(--quiet); margin: .25rem 0 1.5rem; }
a { color: var(--green); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1.25rem; margin-bottom: 1rem; }
section > p { margin: .1rem 0 1rem; font-size: .9rem; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem; margin: 0 0 1rem; }
.figures div { border-left: 3px solid var(--green); padding-left: .7rem; min-width: 0; }
.figures dt { color: var(--quiet); font-size: .85rem; }
.figures dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
small { display: block; font-size: .8rem; color: var(--quiet); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-top: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
th { color: var(--quiet); font-weight: normal; }
h2, p, th, td, dd { overflow: hidden; }
progress { width: 100%; accent-color: var(--green); height: .6rem; }
.warn { color: var(--warn); font-weight: 600; }
.live { color: var(--green); font-weight: 600; }
.list { font-variant-numeric: tabular-nums; }
.list thead th { border-top: 0; white-space: nowrap; }
.list td { padding: .4rem .8rem .4rem 0; white-space: nowrap; }
.list .wide { white-space: normal; }
.list .figure { text-align: right; }
.list td:last-child, .list th:last-child { padding-right: 0; }
.list progress { display: block; min-width: 4.5rem; margin: .4rem 0 .2rem; }
@media (max-width: 56rem) {
  body { padding: 1rem .6rem; }
  section { padding: 1rem .9rem; }
  .list thead { display: none; }
  .list tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.3rem, 1fr)); gap: .4rem .8rem; padding: .8rem 0;
    border-top: 1px solid var(--line); }
  .list tbody tr:first-child { border-top: 0; padding-top: 0; }
  .list td, .list .figure { border: 0; padding: 0; text-align: left; }
  .list progress { min-width: 0; }
  .list td { white-space: normal; }
  .list .wide { grid-column: 1 / -1; }
  .list td:empty { display: none; }
  .list td[data-name]::before { content: attr(data-name); display: block; font-size: .8rem; color: var(--quiet); }
}
@media (max-width: 32rem) {
  .facts tr { display: block; border-top: 1px solid var(--line); padding: .4rem 0; }
  .facts th, .facts td { display: block; width: auto; border: 0; padding: 0; }
}
"""

_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Were anything of a journal to get through unescaped, a browser still would not run or load it."""
