"""Hogwild! inference: workers that solve one problem together while they read one another's unfinished text."""
