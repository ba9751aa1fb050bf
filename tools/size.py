"""Count the code of the package: ``python -m tools.size [FOLDER]`` (``src/pnp_ovss`` without one).

A line of code is one that is no docstring, no comment and not blank. Printed per folder: files, lines, lines of code,
and for the whole how dense it is: the mean length of a line of code and the longest functions.
"""

import ast
import io
import sys
import tokenize
from collections import defaultdict
from pathlib import Path

LONGEST = 5
SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def docstrings(tree: ast.AST) -> set[int]:
    """Return the numbers of the lines that docstrings take, those behind attributes among them."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def code_lines(text: str) -> set[int]:
    """Return the numbers of the lines that hold code, counted from 1."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SKIPPED:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstrings(ast.parse(text))


def functions(text: str) -> list[tuple[int, str]]:
    """Return length in lines (docstring included) and name of every function."""
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [((node.end_lineno or node.lineno) - node.lineno + 1, node.name) for node in found]


def main() -> None:
    """Print the table."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "src/pnp_ovss")
    table: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    widths: list[int] = []
    lengths: list[tuple[int, str]] = []
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        code = code_lines(text)
        parts = path.relative_to(root).parts
        row = table[parts[0] if len(parts) > 1 else "."]
        row[0], row[1], row[2] = row[0] + 1, row[1] + len(text.splitlines()), row[2] + len(code)
        widths += [len(line) for number, line in enumerate(text.splitlines(), 1) if number in code]
        lengths += [(length, f"{path.relative_to(root)}:{name}") for length, name in functions(text)]
    print(f"{'folder':14}{'files':>7}{'lines':>8}{'code':>8}")
    for folder, (files, lines, code_count) in sorted(table.items()):
        print(f"{folder:14}{files:7}{lines:8}{code_count:8}")
    print(
        f"{'all':14}" + "".join(f"{sum(row[i] for row in table.values()):{width}}" for i, width in enumerate((7, 8, 8)))
    )
    print(f"mean length of a line of code: {sum(widths) / max(1, len(widths)):.1f} characters")
    mean = sum(length for length, _ in lengths) / max(1, len(lengths))
    print(f"functions: {len(lengths)}, mean {mean:.1f} lines; the longest:")
    for length, name in sorted(lengths, reverse=True)[:LONGEST]:
        print(f"  {length:4} {name}")


if __name__ == "__main__":
    main()
