"""External brains: where knowledge comes from that a model does not have, each behind one protocol."""
