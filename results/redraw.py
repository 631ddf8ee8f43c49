"""Write the tables and reports of ``compare-d64`` and ``grid`` anew from their JSON, without training anything.

python results/redraw.py
"""

from pathlib import Path

from frailt.files import write_text
from frailt.paper.grid_report import draw_report
from frailt.paper.grid_results import GridResults
from frailt.studies.comparison import Comparison
from frailt.studies.report import markdown

HERE = Path(__file__).parent

write_text(HERE / "compare-d64" / "table.md", markdown(Comparison.read(HERE / "compare-d64" / "compare.json")))
draw_report(GridResults.read(HERE / "grid" / "grid.json"), HERE / "grid")
