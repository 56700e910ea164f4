"""The pure machine: state is a fold of the log. No clock, no randomness, no I/O.

Read in this order: `transitions` (what can happen at all), `joins` (when a node may start), `state`, `effects`,
`decide` (one event), `snapshot` (to and from Redis).
"""
