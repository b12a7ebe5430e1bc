"""Models of providers and vLLM servers.

`litellm` is imported when a model of a provider without OpenAI's format is loaded, not before.
"""
