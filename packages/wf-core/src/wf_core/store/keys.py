"""Names of every Redis key, and which script may write it. docs/architecture.md names the one writer of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """Keys of one event partition. All carry the hash tag `{n}`, so they share a slot in Redis Cluster."""

    prefix: str

    @classmethod
    def of(cls, namespace: str, partition: int) -> PartitionKeys:
        """The keys of `partition` in `namespace`."""
        return cls(f"{namespace}:{{{partition}}}")

    @property
    def meta(self) -> str:
        """Hash: own (nonce), lease, off, bid, last, inc, gen, live, run, seq, ts.

        LEASE, RENEW, RELEASE, REBASE, APPLY.
        """
        return self.prefix + ":m"

    def execution(self, execution_id: str) -> str:
        """Hash: the execution. APPLY."""
        return f"{self.prefix}:x:{execution_id}"

    def nodes(self, execution_id: str) -> str:
        """String of 10 bytes a node: status, attempt, lost, time. APPLY."""
        return f"{self.prefix}:s:{execution_id}"

    def results(self, execution_id: str) -> str:
        """Hash, by the path of a node: `o:` output JSON, `i:` input JSON, `a:` attempts in msgpack, and more. APPLY.

        `w:` what an open wait lacks, `c:` how to undo it; also `o:` of a scope's key: the output of a body.
        """
        return f"{self.prefix}:r:{execution_id}"

    def scopes(self, execution_id: str) -> str:
        """Hash scope key → ScopeRecord: the insides of containers, with the places of their cells in `nodes`. APPLY."""
        return f"{self.prefix}:b:{execution_id}"

    def history(self, execution_id: str) -> str:
        """Stream: what happened to the execution, several lines an entry. APPLY. Read with `codec.history_lines`."""
        return f"{self.prefix}:h:{execution_id}"

    @property
    def in_flight(self) -> str:
        """Hash token → Unix ms of its dispatch. APPLY."""
        return self.prefix + ":q"

    @property
    def sent(self) -> str:
        """Hash token → `topic-partition:offset:incarnation` of its newest copy. TRIM; APPLY removes."""
        return self.prefix + ":qa"

    @property
    def queues(self) -> str:
        """Set of the queues that have an outbox. APPLY."""
        return self.prefix + ":qs"

    def outbox(self, queue: str) -> str:
        """Zset of tokens to send to `queue`, in order. APPLY adds, TRIM and APPLY remove."""
        return f"{self.prefix}:ob:{queue}"

    @property
    def messages(self) -> str:
        """Hash token → the task message's bytes, while the token is in flight. APPLY."""
        return self.prefix + ":om"

    @property
    def timers(self) -> str:
        """Zset `kind|token` by due time in Unix ms. APPLY."""
        return self.prefix + ":tm"

    @property
    def claims(self) -> str:
        """Hash token → `worker|Unix ms`. CLAIM, BEAT, CONDEMN, WITHDRAW; APPLY removes."""
        return self.prefix + ":cl"

    @property
    def progress(self) -> str:
        """Hash token → JSON that a running task gave to `ctx.heartbeat`: means nothing without its claim. BEAT.

        It is not a part of the claim, which sweeps read all the time. BEAT takes out what has no claim any more, and
        the key expires where nobody beats, so APPLY need not touch it.
        """
        return self.prefix + ":pg"

    @property
    def heartbeats(self) -> str:
        """Hash worker → counter. CLAIM, BEAT; APPLY removes those that are long silent."""
        return self.prefix + ":hb"

    @property
    def concurrency(self) -> str:
        """Hash concurrency key → msgpack of the executions that hold it and that wait for it. APPLY."""
        return self.prefix + ":ck"

    @property
    def accepted(self) -> str:
        """Hash `execution/verb` → msgpack of a command that was answered but not folded.

        ACCEPT, ACCEPT_ALL; APPLY removes.
        """
        return self.prefix + ":acc"

    @property
    def expired(self) -> str:
        """String: the newest end, in Unix ms, of an execution that was deleted. APPLY."""
        return self.prefix + ":exp"

    def document(self, document_hash: str) -> str:
        """Hash part → bytes of a compressed document; field `parts` their number. APPLY."""
        return f"{self.prefix}:d:{document_hash}"

    def index(self, *words: str) -> str:
        """Zset of execution ids by creation time: `all`, `s:<status>`, `n:<name>`, `l:<label>=<value>`. APPLY.

        `ended` is by the time of the end.
        """
        return ":".join((self.prefix, "ix", *words))


@dataclass(frozen=True, slots=True)
class InstallationKeys:
    """Keys that belong to no partition."""

    namespace: str

    @property
    def installation(self) -> str:
        """Hash: partitions, task_partitions, incarnation, version. INSTALL."""
        return f"{self.namespace}:install"

    @property
    def workers(self) -> str:
        """Zset worker id → Unix ms of its last heartbeat. worker."""
        return f"{self.namespace}:wk"

    def worker(self, worker_id: str) -> str:
        """String with a time to live: JSON of host, pid, queues, slots, free, waiting, catalogue hash, broken tasks.

        worker.
        """
        return f"{self.namespace}:wk:{worker_id}"

    @property
    def orchestrators(self) -> str:
        """Zset orchestrator id → Unix ms of its last heartbeat. orchestrator."""
        return f"{self.namespace}:orch"

    @property
    def given_up(self) -> str:
        """Hash orchestrator id → numbers of the partitions that it cannot serve for the moment. orchestrator."""
        return f"{self.namespace}:orch:up"

    @property
    def backlogs(self) -> str:
        """Hash orchestrator id → JSON of queue → how many messages wait to be sent, by level. orchestrator."""
        return f"{self.namespace}:orch:backlog"

    @property
    def catalogues(self) -> str:
        """Hash catalogue hash → JSON of the tasks that workers with it can run. worker; orchestrator removes."""
        return f"{self.namespace}:cat"

    def task_lease(self, queue: str, partition: int) -> str:
        """Hash own, lease, off, inc of a task partition. Scripts TASK_LEASE, TASK_COMMIT, TASK_RELEASE. worker."""
        return f"{self.namespace}:{{t:{queue}:{partition}}}"

    @property
    def cancel_channel(self) -> str:
        """Pub/sub channel: tokens that left the in-flight set while a worker may run them."""
        return f"{self.namespace}:cancel"

    def log(self, topic: str, partition: int) -> str:
        """Stream of one partition of the redis log; the events' one shares its partition's slot."""
        if topic == f"{self.namespace}.events":
            return f"{PartitionKeys.of(self.namespace, partition).prefix}:log"
        return f"{self.namespace}:{{{topic}:{partition}}}:log"

    def log_bounds(self, topic: str, partition: int) -> str:
        """Hash start, end of one partition of the redis log. Scripts of broker/redis.py."""
        return f"{self.log(topic, partition)}:b"

    @property
    def dead_letters(self) -> str:
        """Hash offset in the topic of dead letters → JSON of what was done about the letter. API."""
        return f"{self.namespace}:dlq"

    def cached(self, name: str) -> str:
        """String with a time to live: an output that a node with `cache` gave. orchestrator."""
        return f"{self.namespace}:cache:{name}"

    @property
    def definition_names(self) -> str:
        """Zset of the names of registered definitions, all of score 0: by name. DEFINE."""
        return f"{self.namespace}:{{def}}:names"

    def definition(self, name: str) -> str:
        """Hash `versions` → msgpack of what is registered; `d:<hash>` → the compressed document. DEFINE."""
        return f"{self.namespace}:{{def}}:d:{name}"

    @property
    def topics(self) -> str:
        """Hash topic → its number of partitions, of the redis log. Whoever starts first."""
        return f"{self.namespace}:topics"
