"""The commands of `wf` that wf-core ships, each registered in the group `wf.commands`."""
