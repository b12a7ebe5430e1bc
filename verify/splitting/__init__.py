"""An answer cut into claims."""
