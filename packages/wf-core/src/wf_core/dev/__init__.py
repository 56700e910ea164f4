"""`wf dev`: a private redis-server and, in one process, the API, an orchestrator and a worker."""
