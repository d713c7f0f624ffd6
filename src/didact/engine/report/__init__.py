"""The report of a bench run: one self-contained HTML file with tables and interactive plots, no network needed.

`page` gathers what the template shows, `table` the leaderboard, `tuning` the trials, `figures` the numbers that
`plots.js` draws, `words` turns numbers into text. Nothing here knows a family: axes, directions and units come from
`Family` and `Metric`.
"""

from didact.engine.report.page import render

__all__ = ["render"]
