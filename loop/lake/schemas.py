"""The lake's tables: every column's name, type and meaning (``docs/turn-table.md`` lists them).

A column that holds a time is stored as ``timestamp(us, UTC)`` under a name without the ending
``_us`` that the record's integer field has: ``started_at`` holds ``Turn.started_at_us``. The views
that queries see carry the record's names and integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

STRING = pa.string()
INT64 = pa.int64()
FLOAT64 = pa.float64()
BOOL = pa.bool_()
TIMESTAMP = pa.timestamp("us", tz="UTC")
STRINGS = pa.list_(STRING)

TOOL_CALL = pa.struct(
    [
        ("tool_use_id", STRING),
        ("name", STRING),
        ("success", BOOL),
        ("error_type", STRING),
        ("decision", STRING),
        ("duration_ms", INT64),
        ("at_us", INT64),
        ("inferred", BOOL),
    ]
)
FINDING = pa.struct(
    [
        ("verdict", STRING),
        ("claim", STRING),
        ("reason", STRING),
        ("turn_id", STRING),
        ("evidence", STRINGS),
    ]
)
EVIDENCE_USED = pa.struct([("kind", STRING), ("seen", INT64), ("missing", INT64)])
FEATURE = pa.struct([("name", STRING), ("cluster_mean", FLOAT64), ("overall_mean", FLOAT64)])
SHARE = pa.struct([("name", STRING), ("value", FLOAT64)])
LIFT = pa.struct(
    [
        ("kind", STRING),
        ("name", STRING),
        ("cluster_share", FLOAT64),
        ("overall_share", FLOAT64),
        ("lift", FLOAT64),
        ("low", FLOAT64),
        ("high", FLOAT64),
    ]
)
POLICY_CHECK = pa.struct(
    [
        ("verdict", STRING),
        ("reason", STRING),
        ("policy_version", INT64),
        ("is_randomised", BOOL),
        ("ratio", FLOAT64),
        ("low", FLOAT64),
        ("high", FLOAT64),
        ("excess_share", FLOAT64),
    ]
)
# Shares of sessions and tokens are in the run's record alone: a struct once stored does not grow.
RULE_REACH = pa.struct(
    [
        ("rule_id", STRING),
        ("measure", STRING),
        ("turns", INT64),
        ("turn_share", FLOAT64),
        ("cost_share", FLOAT64),
        ("routed_turn_share", FLOAT64),
        ("routed_cost_share", FLOAT64),
        ("marginal_cost_microusd", INT64),
    ]
)
INTERVAL = pa.struct([("estimate", FLOAT64), ("low", FLOAT64), ("high", FLOAT64)])
OUTCOME = pa.struct(
    [
        ("value", INTERVAL),
        ("difference", INTERVAL),
        ("snips", FLOAT64),
        ("sessions", INT64),
        ("effective_sample_size", FLOAT64),
        ("support", FLOAT64),
        ("refusals", STRINGS),
        ("direct_method", FLOAT64),
        ("largest_weight", FLOAT64),
    ]
)
SLICE = pa.struct(
    [
        ("dimension", STRING),
        ("name", STRING),
        ("sessions", INT64),
        ("scored_sessions", INT64),
        ("effective_sample_size", FLOAT64),
        ("saving_share", FLOAT64),
        ("difference", INTERVAL),
        ("p_worse", FLOAT64),
        ("p_worse_holm", FLOAT64),
    ]
)


@dataclass(frozen=True, slots=True)
class Column:
    """``name`` is the stored name, ``record_name`` the field's and the views' name.

    ``only_settled``: no field of a record, but worked out from the row's other columns whenever a
    settled file is written; null in all other files.
    """

    name: str
    type: pa.DataType
    description: str
    only_settled: bool = False

    @property
    def record_name(self) -> str:
        return f"{self.name}_us" if self.type == TIMESTAMP else self.name


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One table. ``time_column`` decides the day that a row is kept under.

    ``version`` rises when columns are added; none is ever removed or given another meaning.
    """

    name: str
    version: int
    description: str
    time_column: str
    columns: tuple[Column, ...]

    def arrow(self) -> pa.Schema:
        """The stored schema; each field's metadata holds its description."""
        return pa.schema(
            [
                pa.field(column.name, column.type, metadata={"description": column.description})
                for column in self.columns
            ]
        )

    @property
    def has_revisions(self) -> bool:
        return any(column.name == "revision" for column in self.columns)

    def statistics_columns(self) -> tuple[str, ...]:
        """The columns whose smallest and largest values the table's log keeps for each file.

        None of them holds anything about a person: the log outlives the files that it names.
        """
        return STATISTICS if self.has_revisions else ()

    @property
    def time_name(self) -> str:
        """The time column's name in records and views."""
        return next(c.record_name for c in self.columns if c.name == self.time_column)

    def record_names(self) -> tuple[str, ...]:
        return tuple(column.record_name for column in self.columns if not column.only_settled)


DAY = Column("day", STRING, "UTC day of the row's time, ISO text. The partition.")
_REVISION = Column(
    "revision", INT64, "Journal position that the row was assembled at; the highest is current."
)
_COMMIT = Column(
    "commit", INT64, "Table version that wrote the row; decides between rows of one revision."
)
_REMOVED = Column(
    "removed", BOOL, "True: from this revision on, the session no longer has what the row names."
)
_DIGEST = Column("digest", STRING, "Digest of what the row says; equal digests are not rewritten.")

_SUPERSEDES_FROM = Column(
    "supersedes_from_day",
    STRING,
    "Earliest day of the row's predecessor, else the row's own; null: not known.",
)
_SUPERSEDES_TO = Column("supersedes_to_day", STRING, "Latest day of the same.")
STATISTICS = ("revision", "supersedes_from_day", "supersedes_to_day")

EVENTS = TableSchema(
    "events",
    2,
    "Raw truth, append-only: each received log record, span, metric point and transcript line.",
    "at",
    (
        DAY,
        Column("session_id", STRING, "Session that the record belongs to."),
        Column("event_id", STRING, "Digest of what the record says: sent again, it has the same."),
        Column("kind", STRING, "`log`, `span`, `metric`, `transcript` or `decision`."),
        Column("name", STRING, "Name of the record, such as `claude_code.api_request`."),
        Column("at", TIMESTAMP, "When it happened, by the client's clock."),
        Column("sequence", INT64, "Order among events of one time."),
        Column("attributes", STRING, "The record's attributes as a JSON object."),
        Column("resource", STRING, "The emitter's attributes as a JSON object."),
        Column("received_at", TIMESTAMP, "When the collector received it."),
        Column("credential", STRING, "Who sent it, by token; empty on an open loopback port."),
        Column(
            "conflict",
            STRING,
            "Id of a conflict: a record of the same identity that says something else was stored "
            "before. Null: none.",
        ),
    ),
)

TURNS = TableSchema(
    "turns",
    3,
    "One model request and the tool calls it asked for, without any content.",
    "started_at",
    (
        DAY,
        Column("session_id", STRING, "Conversation; survives a resume."),
        Column("turn_id", STRING, "The request id; a digest where an old client sent none."),
        _REVISION,
        _COMMIT,
        _REMOVED,
        _DIGEST,
        Column("request_id", STRING, "The API's request id; empty when the client sent none."),
        Column("started_at", TIMESTAMP, "When the request was sent."),
        Column("ended_at", TIMESTAMP, "When its answer was complete."),
        Column("sequence", INT64, "With `started_at` and `turn_id`: the order in the session."),
        Column("prompt_id", STRING, "The human message that the turn serves."),
        Column("agent_id", STRING, "The subagent; empty is the main loop."),
        Column("agent_name", STRING, "Kind of subagent, such as `Explore`."),
        Column("query_source", STRING, "The client's word for what asked: `sdk`, `agent:…`."),
        Column("request_class", STRING, "`main`, `subagent` or `auxiliary`."),
        Column("developer", STRING, "Who is charged, or `unattributed`."),
        Column("org_path", STRING, "Organization path, `/` between levels, or `unattributed`."),
        Column("repository", STRING, "Repository worked on, or `unattributed`."),
        Column("client_version", STRING, "Version of the client."),
        Column("requested_model", STRING, "Model that the client asked for."),
        Column("served_model", STRING, "Model that answered; empty when nothing was served."),
        Column("effort", STRING, "Effort asked for; empty when not stated."),
        Column("input_tokens", INT64, "Uncached input tokens."),
        Column("output_tokens", INT64, "Output tokens."),
        Column("cache_read_tokens", INT64, "Input tokens read from the prompt cache."),
        Column("cache_creation_5m_tokens", INT64, "Input tokens written to the 5-minute cache."),
        Column("cache_creation_1h_tokens", INT64, "Input tokens written to the 1-hour cache."),
        Column("duration_ms", INT64, "Duration of the request; null when not known."),
        Column("ttft_ms", INT64, "Time to the first token; null when not known."),
        Column("attempts", INT64, "Requests sent for this turn, the failed ones too."),
        Column("status", STRING, "`ok`, `error` or `refused`."),
        Column("error_status", INT64, "HTTP status of the last failed attempt; null if none."),
        Column("stop_reason", STRING, "Why the answer ended, as the API says it."),
        Column("prompt_chars", INT64, "Length of the human prompt; null when not known."),
        Column("starts_prompt", BOOL, "Whether it is the first turn of its prompt and agent."),
        Column("tool_calls", pa.list_(TOOL_CALL), "The tool calls asked for, in order."),
        Column("client_cost_microusd", INT64, "The client's own figure, for reconciliation only."),
        Column("cost_microusd", INT64, "Cost in micro-dollars; null is unpriced, never 0."),
        Column("price_version", STRING, "Price book that the cost was computed with."),
        Column("unpriced_reason", STRING, "Why there is no cost; empty when there is one."),
        Column("sources", STRINGS, "What the turn was assembled from, such as `otlp-log`."),
        Column("policy_serial", INT64, "Publication that routed it; null when none did."),
        Column("policy_version", INT64, "Version of the policy that routed it; null when none."),
        Column("arm", STRING, "Arm of the publication; empty when none."),
        Column("rule_id", STRING, "Rule that matched; empty when none."),
        Column("message_id", STRING, "The API's id of the answer; empty when no source names it."),
        Column("speed", STRING, "`standard` or `fast`; empty when not stated."),
        Column("service_tier", STRING, "`standard`, `priority` or `batch`; empty: not stated."),
        Column("inference_geo", STRING, "Where it was served: `global`, `us`; empty: not stated."),
        Column("usage_source", STRING, "Source that the tokens were read from; empty: none told."),
        Column("cache_split_assumed", BOOL, "Cache writes came unsplit: all count as 5-minute."),
        Column("web_search_requests", INT64, "Web searches of the API, charged by the search."),
        Column("charge_version", INT64, "Re-pricing that gave the cost; 0 is the first pricing."),
        _SUPERSEDES_FROM,
        _SUPERSEDES_TO,
        Column("device_id", STRING, "The client's id of its installation; empty when not stated."),
        Column("org_node_id", STRING, "Node of the organization charged; empty: none of a tree."),
        Column(
            "attributed_by",
            STRING,
            "What named the node: `credential`, `directory`, `label`, `rule` or `nobody`.",
        ),
        Column("asserted_org_path", STRING, "What labels said, where that was not believed."),
        Column(
            "charge_key",
            STRING,
            "In settled files: the day, `org_path`, `developer` and the model charged in one text, "
            "so that sums group by one column. Null elsewhere.",
            only_settled=True,
        ),
    ),
)

CONTENTS = TableSchema(
    "contents",
    2,
    "Texts of prompts, answers and tools, apart from the turns for their own permissions.",
    "at",
    (
        DAY,
        Column("session_id", STRING, "Session that the text belongs to."),
        Column("turn_id", STRING, "Turn that the text belongs to; empty when no turn served it."),
        _REVISION,
        _COMMIT,
        _REMOVED,
        _DIGEST,
        Column("prompt_id", STRING, "The human message that it belongs to."),
        Column("agent_id", STRING, "The subagent; empty is the main loop."),
        Column(
            "kind",
            STRING,
            "`prompt`, `assistant_text`, `tool_input`, `tool_output`, `tool_error` or "
            "`tool_definitions`.",
        ),
        Column("tool_use_id", STRING, "Tool call that it belongs to; empty for other kinds."),
        Column("tool_name", STRING, "Name of the tool; empty for other kinds."),
        Column("at", TIMESTAMP, "When it was said or returned."),
        Column("sequence", INT64, "Order among texts of one time."),
        Column("text", STRING, "The text, as far as it was received."),
        Column("state", STRING, "`present`, `truncated`, `redacted` or `missing`."),
        Column("chars", INT64, "Length as the client states it."),
        Column("source", STRING, "Where it was received from, such as `otlp-log`."),
        _SUPERSEDES_FROM,
        _SUPERSEDES_TO,
    ),
)

SCORES = TableSchema(
    "scores",
    2,
    "Judgements of sessions; never edited, only superseded by a later one.",
    "scored_at",
    (
        DAY,
        Column("session_id", STRING, "The session that was judged."),
        Column("evaluator", STRING, "Name of the evaluator."),
        Column("evaluator_version", STRING, "Its version."),
        Column("value", FLOAT64, "0 is worst, 1 is best; null is unscored."),
        Column("unscored_reason", STRING, "Why there is no value; empty when there is one."),
        Column("coverage", FLOAT64, "Share of what it looked for that had evidence to judge."),
        Column("findings", pa.list_(FINDING), "What it saw, with pointers to the evidence."),
        Column("scored_at", TIMESTAMP, "When it was judged; the latest is current."),
        Column("input_digest", STRING, "Digest of what was read of the session."),
        Column("config_digest", STRING, "Digest of the evaluator's configuration."),
        Column(
            "evidence_used", pa.list_(EVIDENCE_USED), "How much of each kind of evidence it had."
        ),
        Column("cost_microusd", INT64, "Cost of the judgement; null is not known, 0 is free."),
        Column("rows_digest", STRING, "Digest of the stored rows that the session was read from."),
        Column(
            "inclusion_probability",
            FLOAT64,
            "Probability with which the session came to be judged; null where all are.",
        ),
    ),
)

PROFILES = TableSchema(
    "profiles",
    1,
    "What clustering knows of a scored session. The words are of its texts, and go with these.",
    "profiled_at",
    (
        DAY,
        Column("session_id", STRING, "The session that is described."),
        Column("profile_version", STRING, "Version of the code that made it."),
        Column("scored_at", TIMESTAMP, "When the `quality` was given that it was made after."),
        Column("features", pa.list_(SHARE), "Its features that are not 0."),
        Column(
            "words", STRINGS, "Words of its prompts and of claims that did not hold, each once."
        ),
        Column("languages", STRINGS, "Languages of the files that it edited."),
        Column("profiled_at", TIMESTAMP, "When it was described; the latest is current."),
    ),
)

CLUSTERS = TableSchema(
    "clusters",
    2,
    "Groups of low-scoring sessions; one clustering writes all of its rows at one time.",
    "clustered_at",
    (
        DAY,
        Column("cluster_id", STRING, "Name of the cluster; empty marks a clustering of none."),
        Column("label", STRING, "The cluster in words."),
        Column("session_ids", STRINGS, "Its sessions."),
        Column("mean_score", FLOAT64, "Mean quality of its sessions."),
        Column("cost_microusd", INT64, "What its sessions were charged."),
        Column("cost_share", FLOAT64, "That cost as a share of all sessions'."),
        Column("features", pa.list_(FEATURE), "What sets it apart from all sessions."),
        Column("exemplars", STRINGS, "Sessions nearest to its centre first."),
        Column("clustered_at", TIMESTAMP, "When the clustering was made; the latest is current."),
        Column("kind", STRING, "`group`, or `outliers` for what is like nothing else."),
        Column("lost_cost_microusd", INT64, "Sum of lost quality times cost over its sessions."),
        Column("stability", FLOAT64, "Mean Jaccard index with its best match in samples."),
        Column("state", STRING, "`new`, `stable`, `split` or `merged`, against the run before."),
        Column("parents", STRINGS, "Clusters of the run before that went into it."),
        Column("terms", STRINGS, "The words that set it apart, best first."),
        Column("contrast", STRING, "How it differs from the nearest other cluster."),
        Column(
            "lifts", pa.list_(LIFT), "What is more frequent in it than overall, and how surely."
        ),
        Column(
            "policy_check", POLICY_CHECK, "Whether a policy version explains it; null: unknown."
        ),
        Column("centre", pa.list_(SHARE), "Its means of the features that are not 0."),
        Column("name", STRING, "A name that a model gave it; empty: none did."),
        Column("named_by", STRING, "The model, prompt and version that named it."),
    ),
)

DECISIONS = TableSchema(
    "decisions",
    2,
    "What a gateway chose for each request.",
    "at",
    (
        DAY,
        Column("session_id", STRING, "Session of the request."),
        Column("decision_id", STRING, "Request id that the gateway stamped on the response."),
        Column("at", TIMESTAMP, "When it was decided."),
        Column("agent_id", STRING, "The subagent; empty is the main loop."),
        Column("serial", INT64, "Serial of the publication in force."),
        Column("policy_version", INT64, "Version of the arm's policy."),
        Column("policy_digest", STRING, "Digest of the arm's policy."),
        Column("arm", STRING, "Arm that the session fell into."),
        Column("bucket", INT64, "Bucket of the session, 0 to 9,999."),
        Column("propensity", FLOAT64, "Probability of the arm as it was drawn."),
        Column("rule_id", STRING, "Rule that matched, `default` or `guard:…`."),
        Column("requested_model", STRING, "Model that the client asked for."),
        Column("routed_model", STRING, "Model that the gateway sent it to."),
        Column("rollout_id", STRING, "Rollout of the publication; empty outside one."),
        Column("total_input_tokens", INT64, "Measure: all input tokens, estimated."),
        Column("uncached_input_tokens", INT64, "Measure: uncached input tokens, estimated."),
        Column("new_tokens", INT64, "Measure: tokens not yet in the cache, estimated."),
        Column("prompt_tokens", INT64, "Measure: tokens of the human prompt, estimated."),
        Column("request_class", STRING, "`main`, `subagent` or `auxiliary`."),
        Column("agent_name", STRING, "Kind of subagent."),
        Column("gateway", STRING, "Kind of gateway."),
        Column("instance", STRING, "Which of its instances."),
        Column("fixes", STRINGS, "Parameter repairs made to the body."),
        Column("upstream_status", INT64, "HTTP status of the answer; null when not known."),
        Column("org_path", STRING, "Organization path that a header named (`x-tw-org`)."),
        Column("repository", STRING, "Repository that a header named (`x-tw-repo`)."),
    ),
)

ESTIMATES = TableSchema(
    "estimates",
    2,
    "What candidate policies would have done on logged sessions.",
    "estimated_at",
    (
        DAY,
        Column("run_id", STRING, "Optimization run that asked."),
        Column("estimated_at", TIMESTAMP, "When the estimate was stored."),
        Column("policy_digest", STRING, "Digest of the candidate."),
        Column("sessions", INT64, "Sessions replayed."),
        Column("turns", INT64, "Turns replayed."),
        Column("logged_cost_microusd", INT64, "Cost as billed."),
        Column("incumbent_cost_microusd", INT64, "Cost of the policy in force, replayed."),
        Column("candidate_cost_microusd", INT64, "Cost of the candidate's routes, replayed."),
        Column("naive_cost_microusd", INT64, "Logged tokens at the candidate's prices."),
        Column("rerouted_turns", INT64, "Turns that the candidate serves otherwise."),
        Column("unpriced_turns", INT64, "Turns left out for want of a price."),
        Column(
            "modelled_cost_microusd",
            INT64,
            "Cost of the logged routes by the cache model; null when not computed.",
        ),
        Column("reach", pa.list_(RULE_REACH), "What each rule matches."),
        Column("quality_value", INTERVAL, "Mean session quality; null when not answerable."),
        Column("quality_difference", INTERVAL, "Its difference to the incumbent, or null."),
        Column("quality_snips", FLOAT64, "Self-normalised estimate, or null."),
        Column("quality_sessions", INT64, "Sessions with a quality and a propensity."),
        Column("quality_effective_sample_size", FLOAT64, "Effective number of sessions."),
        Column("quality_support", FLOAT64, "Mean weight; 1 when the log covers the policy."),
        Column("quality_refusals", STRINGS, "Why the log can't answer; empty when it can."),
        Column("quality_direct_method", FLOAT64, "The outcome model alone: a diagnostic, or null."),
        Column("quality_largest_weight", FLOAT64, "Largest weight of a session."),
        Column("session_cost_usd", OUTCOME, "Off-policy: mean cost of a session, in USD."),
        Column("session_wait_seconds", OUTCOME, "Off-policy: mean duration of its requests."),
        Column("slices", pa.list_(SLICE), "The difference in quality on parts of the sessions."),
    ),
)

CHARGES = TableSchema(
    "charges",
    2,
    "Rollup of the turns, rebuilt a day at a time: what reports of spend may read instead.",
    "day",
    (
        DAY,
        Column("org_path", STRING, "Organization path, or `unattributed`."),
        Column("developer", STRING, "Who is charged, or `unattributed`."),
        Column("repository", STRING, "Repository worked on, or `unattributed`."),
        Column("session_id", STRING, "The session."),
        Column("model", STRING, "Model charged: the served one, else the requested one."),
        Column("turns", INT64, "Requests, failed ones too."),
        Column("unpriced_turns", INT64, "Those of them without a cost."),
        Column("input_tokens", INT64, "Uncached input tokens."),
        Column("output_tokens", INT64, "Output tokens."),
        Column("cache_read_tokens", INT64, "Input tokens read from the prompt cache."),
        Column("cache_creation_5m_tokens", INT64, "Input tokens written to the 5-minute cache."),
        Column("cache_creation_1h_tokens", INT64, "Input tokens written to the 1-hour cache."),
        Column("cost_microusd", INT64, "Cost of the priced turns; null when none is priced."),
        Column("charge_version", INT64, "Re-pricing of the day; its highest is current."),
        Column("price_version", STRING, "Price book of these turns; empty where none applied."),
    ),
)

DAILY_CHARGES = TableSchema(
    "daily_charges",
    1,
    "Rollup of the current charges without sessions and repositories, for reports of spend.",
    "day",
    (
        DAY,
        Column("org_path", STRING, "Organization path, or `unattributed`."),
        Column("developer", STRING, "Who is charged, or `unattributed`."),
        Column("model", STRING, "Model charged: the served one, else the requested one."),
        *CHARGES.columns[6:14],
    ),
)

TABLES: tuple[TableSchema, ...] = (
    EVENTS,
    TURNS,
    CONTENTS,
    SCORES,
    PROFILES,
    CLUSTERS,
    DECISIONS,
    ESTIMATES,
    CHARGES,
    DAILY_CHARGES,
)
