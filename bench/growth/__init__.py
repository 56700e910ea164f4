"""What an event costs as things grow; and how quick take-overs and lists are when very much is there."""
