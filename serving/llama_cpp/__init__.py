"""GGUF files on llama.cpp, by its Python package `llama-cpp-python`: the local engine's scheduler over its forward."""
