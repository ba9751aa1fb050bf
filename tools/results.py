"""Write the tables of docs/results.md as they are while nothing of them is measured.

python -m tools.results        # writes them; with results, pnp-ovss reproduce TABLE --results docs/results.md does
"""

from pathlib import Path

from pnp_ovss.evaluation.reproduction.plan import TABLES
from pnp_ovss.evaluation.reproduction.table import outcomes, write_results

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"


def main() -> None:
    """Write the page."""
    for table in TABLES:
        write_results(PAGE, table, outcomes(table, PAGE.parent / "none", {}))
    print(PAGE)


if __name__ == "__main__":
    main()
