"""A jury of models: answers in roles, blind review of one another, a chair, and claims labelled by agreement."""
