"""The command line as a script, for tests of trainings on several processes: each writes the weights that it has at a checkpoint.

With DIE_AT set to the step of a checkpoint, all of them are gone once it is written.
"""

import os

from transmodal.cli import main
from transmodal.engine import train as engine
from transmodal.engine.checkpoint import save_tree

_save = engine._save


def save_and_tell(loop, log):
    step, rank = loop.progress.step, loop.fabric.global_rank
    save_tree(loop.run / f"step{step}-rank{rank}.safetensors", {name: network.state_dict() for name, network in loop.bare.items()})
    _save(loop, log)
    if os.environ.get("DIE_AT") == str(step):
        os._exit(1)


engine._save = save_and_tell
main()
