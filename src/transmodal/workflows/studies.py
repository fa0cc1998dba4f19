"""What studies there are."""

import json

from transmodal.workflows.design import Study, load_study, study_names


def show_studies(*, as_json: bool) -> None:
    """Print every study of the package: name, title, description, what it compares, and on whom."""
    loaded = [load_study(name) for name in study_names()]
    if as_json:
        print(json.dumps([study.model_dump(mode="json") for study in loaded], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("study", "what it is", box=None, header_style="bold")
    for study in loaded:
        table.add_row(study.name, f"{study.title}\n{study.description}\n{_size(study)}\n")
    Console(highlight=False).print(table)


def _size(study: Study) -> str:
    """What is compared, who is tested, and how often."""
    repeats = "" if study.repeats == 1 else f"; {study.repeats} repeats"
    subsets = f"; by {', '.join(study.subsets)}" if study.subsets else ""
    return f"arms: {', '.join(arm.name for arm in study.arms)}; {study.division}{repeats}{subsets}"
