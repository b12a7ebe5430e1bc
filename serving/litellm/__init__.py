"""Models behind other people's APIs: any provider through LiteLLM, and `hosted_vllm/…` as a first-class citizen.

`litellm` is imported when a model is opened, never before.
"""
