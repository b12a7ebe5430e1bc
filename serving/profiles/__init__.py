"""What models accept and how they show their thoughts, as data."""
