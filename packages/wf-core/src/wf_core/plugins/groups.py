"""Names of the entry point groups."""

TASKS = "wf.tasks"
RETRY_POLICIES = "wf.retry_policies"
SCHEDULING_POLICIES = "wf.scheduling_policies"
BROKERS = "wf.brokers"
COMMANDS = "wf.commands"
SERVICES = "wf.services"
OBSERVERS = "wf.observers"
