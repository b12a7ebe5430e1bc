"""Datasets of evaluations; `loading.load_dataset` loads one."""
