"""What stands between the network and the desk: keys, limits, checks of requests, metrics, spans, logs."""
