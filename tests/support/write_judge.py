"""A scripted judge of calls that change something."""

import json

from support.instant_model import InstantModel


def verdict(request="cancel order 17", *, number=1, requested=True, **policy):
    """What the judge says of one call."""
    return {"call": number, "reason": "It fits.", "requested": requested, "request": request, **policy}


def reply(*verdicts):
    """Its reply."""
    return json.dumps({"calls": verdicts})


class WriteJudge(InstantModel):
    """A judge that gives its replies in turn, the last one for ever; a reply that is an exception is raised."""

    name, identity = "judge", "judge@1"

    def __init__(self, *replies):
        super().__init__(lambda prompt, index: "")
        self.capabilities = self.capabilities.model_copy(update={"json_schema": True})
        self.replies, self.prompts, self.schemas = list(replies), [], []

    async def generate(self, requests, listener=None):
        (request,) = requests
        self.prompts.append(request.prompt.messages)
        self.schemas.append(request.sampling.json_schema)
        one = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(one, Exception):
            raise one
        text = one(request.prompt) if callable(one) else one
        self._text = lambda prompt, index: text
        return await super().generate(requests, listener)
