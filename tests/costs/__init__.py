"""What a task costs in operations: counted, never timed, and compared with budgets."""
