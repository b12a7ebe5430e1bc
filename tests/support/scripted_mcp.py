"""`reason mcp` over standard streams with scripted models, as a program: `python -m support.scripted_mcp STORE`."""

import sys

from reason.cli.main import main

from support.held_model import Held
from support.injected_models import loaded_models
from support.scripted_model import ScriptedModel, replies

if __name__ == "__main__":
    models = {
        "plain": ScriptedModel(replies("The answer is 42."), name="plain"),
        "held": Held(replies("The answer is 42."), name="held"),
    }
    with loaded_models(models):
        sys.exit(main(["mcp", "--model", "plain", "--store", sys.argv[1]]))
