"""What tests share: scripted models, servers, fixtures and generators."""
