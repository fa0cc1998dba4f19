"""What models come with the package, and their cards."""

import json

from transmodal.core.errors import ConfigError
from transmodal.engine.run import read_run
from transmodal.engine.train import WEIGHTS_NAME
from transmodal.methods.builtin import CARD_NAME, DEFAULT_MODEL, builtin_models


def show_models(name: str | None, *, as_json: bool) -> None:
    """Print every built-in model, or the card of one.

    Raises
    ------
    ConfigError
        If there is no model of that name; the message lists those there are.
    """
    folders = builtin_models()
    if name is not None:
        if name not in folders:
            raise ConfigError(f"{name}: not a built-in model; there are {', '.join(folders)}")
        card = (folders[name] / CARD_NAME).read_text(encoding="utf-8")
        print(json.dumps({"model": name, "card": card}, indent=2) if as_json else card)
        return
    rows = []
    for model, folder in folders.items():
        recipe = read_run(folder).recipe
        rows.append(
            {
                "model": model,
                "default": model == DEFAULT_MODEL,
                "direction": recipe["direction"],
                "title": recipe["title"],
                "megabytes": round((folder / WEIGHTS_NAME).stat().st_size / 1e6, 1),
                "folder": str(folder),
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "what it is", "size", box=None, header_style="bold")
    for row in rows:
        table.add_row(row["model"] + (" (default)" if row["default"] else ""), row["title"], f"{row['megabytes']} MB")
    Console(highlight=False).print(table)
