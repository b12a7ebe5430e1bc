"""Fitting of routers to evaluation runs."""
