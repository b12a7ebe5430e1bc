"""Models of providers and vLLM servers, through LiteLLM.

`litellm` is imported when a model is loaded, not before.
"""
