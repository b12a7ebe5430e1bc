"""The REST sidecar: reasoning over HTTP, in OpenAI's format and natively."""
