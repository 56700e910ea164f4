"""`wf dev`: a private redis-server, an API, and in one process an orchestrator and a worker."""
