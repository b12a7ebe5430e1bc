"""Datasets of evaluations, from local files and the Hugging Face hub: `loading.load_dataset` reads one into items."""
