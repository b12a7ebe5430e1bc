"""Servers of one's own: what they support is measured, vLLM's pages are used, and several can stand behind one name.

`serving/litellm` reaches this through the entry points of `reason.servers` and does not import it.
"""
