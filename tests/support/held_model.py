"""A scripted model that blocks until it is cancelled."""

import asyncio

from support.scripted_model import ScriptedModel


class Held(ScriptedModel):
    """A model that writes a few characters and then blocks until it is cancelled."""

    def __init__(self, *args, written=5, **options):
        self.left = self.written = written
        super().__init__(*args, step=self.hold, **options)

    def hold(self):
        self.left -= 1
        return None if self.left >= 0 else asyncio.get_running_loop().create_future()
