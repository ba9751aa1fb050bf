"""Write docs/cli.md, the reference of the command line, from the commands themselves.

python -m tools.cli            # writes it
"""

from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from pnp_ovss.cli import COMMANDS, PROG
from pnp_ovss.cli.flags import OutputFlags, _flags, _setting_flags, expand

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# Command line

*Written by `python -m tools.cli` from the commands themselves; change those.*

`pnp-ovss` alone shows the commands, `pnp-ovss COMMAND --help` the flags of one. Exit codes: 0, done; 1, done but for
some photos, or a model in which `doctor` finds something wrong; 2, wrong use or input, told in one line; 70, a bug,
whose traceback is in a file; 130, stopped by Ctrl-C.
`pnp-ovss --install-completion` makes the shell complete commands and flags.

Flags can come from a file, `pnp-ovss segment --config run.yaml`, which may hold the command as well,
`pnp-ovss --config run.yaml`:

```yaml
command: segment
photos: [demo/scene-000.png, demo/scene-001.png]
classes: {rocket: [rocket], plant: [cactus, flower]}
model: mini-blip
threshold: 0.1
```

Flags of the command line win over those of the file. `run.yaml` beside the results has what was asked for.
"""
SHARED = "Settings and output"
KINDS = {
    parameter.name: "|".join(map(str, get_args(kind)))
    for name in COMMANDS
    for parameter in _flags(import_module(f"pnp_ovss.cli.{name}").command)
    for kind in (get_args(parameter.annotation)[0], *get_args(get_args(parameter.annotation)[0]))
    if get_origin(kind) is Literal
}
"""What stands for the value of a flag with few values."""


def page() -> str:
    """Return the page."""
    parts = [HEAD, *map(_section, COMMANDS)]
    settings = [flag.name for flag in _setting_flags()]
    flags = {flag.name: flag for flag in _click(_everything).params}
    parts.append(f"## {SHARED}\n\nOutput, for all commands but models and doctor:\n")
    parts.append(_table([flags[flag.name] for flag in _flags(OutputFlags)]))
    parts.append("Settings of methods and refiners, for the commands that take a model; else the preset decides:\n")
    parts.append(_table([flags[name] for name in settings]))
    return "\n".join(parts)


def _everything(settings: dict[str, Any]) -> None:
    """Nothing."""


def report() -> None:
    """Nothing; what has it has --json as well."""


def _click(function: Any, light: bool = False) -> Any:
    app = typer.Typer(add_completion=False)
    app.command()(function if light else expand(function))
    return typer.main.get_command(app)


def _section(name: str) -> str:
    module = import_module(f"pnp_ovss.cli.{name}")
    light = getattr(module, "LIGHT", False)
    command = _click(module.command, light)
    shared = {flag.name for flag in (*_setting_flags(), *_flags(OutputFlags))}
    own = [flag for flag in command.params if light or flag.name not in shared]
    places = [flag for flag in own if flag.param_type_name == "argument"]
    usage = " ".join([PROG, name, *(flag.metavar for flag in places), "[FLAGS]"])
    about = (getdoc(module.command) or "").partition("\nArgs:\n")[0].strip().replace("<", "&lt;")
    text = f"## {name}\n\n```text\n{usage}\nexample: {PROG} {module.EXAMPLE}\n```\n\n{about}\n\n{_table(own)}"
    takes_settings = any(flag.name == "threshold" for flag in command.params)
    more = f"\nFurther flags: [{SHARED.casefold()}](#{SHARED.casefold().replace(' ', '-')}).\n"
    return text + (more if takes_settings else "")


def _table(flags: list[Any]) -> str:
    rows = ["| flag | what |", "|---|---|", *map(_row, flags)]
    return "\n".join(rows) + "\n"


def _row(flag: Any) -> str:
    name = flag.metavar
    if flag.param_type_name == "option":
        value = "" if flag.is_flag else f" {flag.metavar or KINDS.get(flag.name) or 'N'}"
        name = " / ".join((*flag.opts, *flag.secondary_opts)) + value
    default = flag.default
    shown = "" if default in (None, False, ()) or callable(default) else f" (default: {default})"
    name, about = (text.replace("|", "\\|") for text in (name, f"{flag.help}{shown}".replace("<", "&lt;")))
    return f"| `{name}` | {about} |"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
