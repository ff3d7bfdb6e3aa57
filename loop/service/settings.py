"""Every setting, once: its type, default, environment name and meaning.

The environment comes first, then a JSON file (``--settings FILE`` or ``TURNWISE_SETTINGS``), then
the default. ``docs/settings.md`` is held to this list by a test.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from loop.domain.errors import BadInput

_SHOWN = "set"  # in place of a secret


def setting(default: Any, doc: str, *, env: str, secret: bool = False) -> Any:
    metadata = {"doc": doc, "env": env, "secret": secret}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The settings in force. ``origins`` says where each value came from."""

    data_dir: Path = setting(
        Path(".turnwise"),
        "Folder of the collectors' journal, the embedded database, keys and state.",
        env="TURNWISE_DATA_DIR",
    )
    store_uri: str = setting(
        "",
        "The lake: a folder or `s3://bucket/prefix`. Empty: `lake` in the data folder.",
        env="TURNWISE_STORE_URI",
    )
    s3_endpoint: str = setting(
        "", "URL of an S3-compatible store other than AWS.", env="TURNWISE_S3_ENDPOINT"
    )
    database_url: str = setting(
        "",
        "Control database in SQLAlchemy's form. Empty: SQLite `control.db` in the data folder.",
        env="TURNWISE_DATABASE_URL",
        secret=True,
    )
    http: str = setting("127.0.0.1:8080", "Address of the API and the pages.", env="TURNWISE_HTTP")
    otlp_http: str = setting(
        "127.0.0.1:4318", "Address of OTLP over HTTP.", env="TURNWISE_OTLP_HTTP"
    )
    otlp_grpc: str = setting(
        "127.0.0.1:4317", "Address of OTLP over gRPC.", env="TURNWISE_OTLP_GRPC"
    )
    edge: str = setting("127.0.0.1:4319", "Address of the edge proxy.", env="TURNWISE_EDGE")
    edge_mode: str = setting(
        "rewrite",
        "Edge proxy: `rewrite` sets the model in the request; `stamp` leaves the request and tells "
        "a gateway behind in `x-tw-` headers; `rewrite_and_stamp` does both.",
        env="TURNWISE_EDGE_MODE",
    )
    edge_forward_headers: tuple[str, ...] = setting(
        (),
        "Edge proxy: further request headers that pass, by the beginnings of their names "
        "(`x-bf-` for Bifrost).",
        env="TURNWISE_EDGE_FORWARD_HEADERS",
    )
    edge_connect_seconds: float = setting(
        5.0, "Edge proxy: longest wait for a connection.", env="TURNWISE_EDGE_CONNECT_SECONDS"
    )
    edge_first_byte_seconds: float = setting(
        600.0,
        "Edge proxy: longest wait for the head of an answer.",
        env="TURNWISE_EDGE_FIRST_BYTE_SECONDS",
    )
    edge_idle_seconds: float = setting(
        120.0,
        "Edge proxy: longest silence inside an answer.",
        env="TURNWISE_EDGE_IDLE_SECONDS",
    )
    edge_client_idle_seconds: float = setting(
        120.0,
        "Edge proxy: longest time in which a client may send nothing of its request, or take "
        "nothing of its answer.",
        env="TURNWISE_EDGE_CLIENT_IDLE_SECONDS",
    )
    edge_drain_seconds: float = setting(
        25.0,
        "Edge proxy: how long answers under way may go on after SIGTERM or a reload.",
        env="TURNWISE_EDGE_DRAIN_SECONDS",
    )
    edge_max_requests: int = setting(
        1000,
        "Edge proxy: most requests at once; more are answered 503.",
        env="TURNWISE_EDGE_MAX_REQUESTS",
    )
    edge_max_buffered_bytes: int = setting(
        512 * 1024 * 1024,
        "Edge proxy: most bytes of requests held at once; more are answered 503.",
        env="TURNWISE_EDGE_MAX_BUFFERED_BYTES",
    )
    api_token: str = setting(
        "",
        "Bearer token that the API, the pages and the collectors ask for. Needed when an address "
        "is not on loopback.",
        env="TURNWISE_API_TOKEN",
        secret=True,
    )
    channel: str = setting(
        "prod", "Channel that policies are published on.", env="TURNWISE_CHANNEL"
    )
    price_book: str = setting(
        "", "JSON file of prices that extends the shipped book.", env="TURNWISE_PRICE_BOOK"
    )
    org_attributes: tuple[str, ...] = setting(
        ("department", "team.id", "cost_center"),
        "Resource attributes that make up the organization path, top level first.",
        env="TURNWISE_ORG_ATTRIBUTES",
    )
    drain_interval_ms: int = setting(
        500,
        "Pause between two moves from the journal into the lake.",
        env="TURNWISE_DRAIN_INTERVAL_MS",
    )
    evaluate_processes: int = setting(
        2,
        "Processes that evaluators judge in where there is much to judge; 1: the service's own.",
        env="TURNWISE_EVALUATE_PROCESSES",
    )
    evaluate_interval_seconds: float = setting(
        5.0,
        "Pause between two passes of the evaluators over new sessions.",
        env="TURNWISE_EVALUATE_INTERVAL_SECONDS",
    )
    rollout_interval_seconds: float = setting(
        5.0,
        "Pause between two looks of the rollout controller.",
        env="TURNWISE_ROLLOUT_INTERVAL_SECONDS",
    )
    gate_max_quality_loss: float = setting(
        0.02,
        "Gate: how far below the incumbent the low end of the quality difference's 95 % interval "
        "may lie.",
        env="TURNWISE_GATE_MAX_QUALITY_LOSS",
    )
    gate_min_saving_share: float = setting(
        0.02, "Gate: smallest saving, as a share of cost.", env="TURNWISE_GATE_MIN_SAVING_SHARE"
    )
    gate_min_sessions: int = setting(
        200, "Gate: fewest sessions to judge on.", env="TURNWISE_GATE_MIN_SESSIONS"
    )
    gate_min_effective_sample_size: float = setting(
        100.0,
        "Gate: fewest sessions that the log must be worth for the candidate.",
        env="TURNWISE_GATE_MIN_EFFECTIVE_SAMPLE_SIZE",
    )
    gate_limits: tuple[str, ...] = setting(
        (),
        "Gate: limits of parts of the organization, as `PATH:LIMIT=NUMBER`; LIMIT is "
        "max_quality_loss, min_effective_sample_size or min_saving_share.",
        env="TURNWISE_GATE_LIMITS",
    )
    optimize_workers: int = setting(
        1,
        "Processes that evaluate the policies of a search; with 1 the search's own.",
        env="TURNWISE_OPTIMIZE_WORKERS",
    )
    optimize_usd_per_worker_hour: float = setting(
        0.05,
        "What an hour of one such process costs, for the dollar budget of a search.",
        env="TURNWISE_OPTIMIZE_USD_PER_WORKER_HOUR",
    )
    auto_approve_written_by: str = setting(
        "",
        "Who answers for the rule that approves what passed the gate. Empty: no rule, a person "
        "approves.",
        env="TURNWISE_AUTO_APPROVE_WRITTEN_BY",
    )
    auto_approve_min_saving_share: float = setting(
        0.05,
        "Approval rule: smallest saving, as a share of cost.",
        env="TURNWISE_AUTO_APPROVE_MIN_SAVING_SHARE",
    )
    auto_approve_max_quality_loss: float = setting(
        0.01,
        "Approval rule: how far below the incumbent the low end of the quality difference's 95 % "
        "interval may lie.",
        env="TURNWISE_AUTO_APPROVE_MAX_QUALITY_LOSS",
    )
    rollout_stages: tuple[str, ...] = setting(
        ("1", "5", "10", "25", "50"),
        "Canary's share of sessions at each stage, in percent; control gets as much.",
        env="TURNWISE_ROLLOUT_STAGES",
    )
    rollout_margin: float = setting(
        0.02,
        "Loss of mean session quality that a promotion must rule out.",
        env="TURNWISE_ROLLOUT_MARGIN",
    )
    rollout_dwell_seconds: float = setting(
        3600.0, "Shortest time in a stage.", env="TURNWISE_ROLLOUT_DWELL_SECONDS"
    )
    rollout_maturation_seconds: float = setting(
        900.0,
        "Age at which a session counts: it should have been scored by then.",
        env="TURNWISE_ROLLOUT_MATURATION_SECONDS",
    )
    rollout_horizon_seconds: float = setting(
        604_800.0,
        "A rollout undecided after this long is rolled back.",
        env="TURNWISE_ROLLOUT_HORIZON_SECONDS",
    )
    budget_interval_seconds: float = setting(
        5.0, "Pause between two looks at the budgets.", env="TURNWISE_BUDGET_INTERVAL_SECONDS"
    )
    notice_webhook: str = setting(
        "",
        "URL that notices (budget alerts, pauses) are posted to; https, or http on this machine.",
        env="TURNWISE_NOTICE_WEBHOOK",
        secret=True,
    )
    notice_webhook_secret: str = setting(
        "",
        "Key of the HMAC-SHA256 over a notice's body, in the header `X-Turnwise-Signature`.",
        env="TURNWISE_NOTICE_WEBHOOK_SECRET",
        secret=True,
    )
    notice_smtp: str = setting(
        "", "Mail server that notices are handed to, HOST:PORT.", env="TURNWISE_NOTICE_SMTP"
    )
    notice_sender: str = setting(
        "", "Address that notices are mailed from.", env="TURNWISE_NOTICE_SENDER"
    )
    notice_recipients: tuple[str, ...] = setting(
        (), "Addresses that every notice is mailed to.", env="TURNWISE_NOTICE_RECIPIENTS"
    )
    max_body_bytes: int = setting(
        16 * 1024 * 1024, "Largest OTLP body as sent.", env="TURNWISE_MAX_BODY_BYTES"
    )
    max_inflated_bytes: int = setting(
        64 * 1024 * 1024,
        "Largest OTLP body after decompression.",
        env="TURNWISE_MAX_INFLATED_BYTES",
    )
    content_mode: str = setting(
        "full",
        "What is stored of texts: `full`, `redacted`, `hashed` or `none`; secrets never are.",
        env="TURNWISE_CONTENT_MODE",
    )
    content_modes: tuple[str, ...] = setting(
        (),
        "Content modes by organization path, as `PATH=MODE`; the most specific path decides.",
        env="TURNWISE_CONTENT_MODES",
    )
    content_hash_key: str = setting(
        "",
        "Key of the mode `hashed`. Empty: a file in the data folder, made when needed.",
        env="TURNWISE_CONTENT_HASH_KEY",
        secret=True,
    )
    min_free_bytes: int = setting(
        256 * 1024 * 1024,
        "Free disk below which the collectors refuse (503) rather than risk what they hold.",
        env="TURNWISE_MIN_FREE_BYTES",
    )
    max_disk_used_percent: float = setting(
        85.0,
        "Share of the disk in use above which the collectors refuse (503); it does not count "
        "while 32 GiB are free.",
        env="TURNWISE_MAX_DISK_USED_PERCENT",
    )
    max_quarantine_bytes: int = setting(
        1024 * 1024 * 1024,
        "Largest quarantine. Above it, bodies that would be set aside are refused (503).",
        env="TURNWISE_MAX_QUARANTINE_BYTES",
    )
    publication_lifetime_seconds: int = setting(
        86_400,
        "How long gateways may use a publication without hearing of it again (`not_after`).",
        env="TURNWISE_PUBLICATION_LIFETIME_SECONDS",
    )
    anthropic_api_key: str = setting(
        "",
        "Key of the model API that the judge asks. Empty: nothing is judged.",
        env="ANTHROPIC_API_KEY",
        secret=True,
    )
    judge_base_url: str = setting(
        "https://api.anthropic.com",
        "Model API that the judge asks; `https`, or `http` on this machine.",
        env="TURNWISE_JUDGE_BASE_URL",
    )
    judge_model: str = setting("claude-haiku-4-5", "Model that judges.", env="TURNWISE_JUDGE_MODEL")
    judge_rubrics: tuple[str, ...] = setting(
        ("faithfulness", "tool_use"),
        "What is judged by itself: `faithfulness`, `tool_use`.",
        env="TURNWISE_JUDGE_RUBRICS",
    )
    judge_org_paths: tuple[str, ...] = setting(
        (),
        "Organization paths whose texts may be sent to the model API, with what is below them; "
        "`*` is all. Empty: none, nothing is judged.",
        env="TURNWISE_JUDGE_ORG_PATHS",
    )
    cluster_namer: str = setting(
        "",
        "Model that names clusters, from their labels and words, where the judge may read all of "
        "their sessions; it counts in the judge's budget. Empty: none.",
        env="TURNWISE_CLUSTER_NAMER",
    )
    judge_sample_rate: float = setting(
        0.02, "Share of sessions that are judged.", env="TURNWISE_JUDGE_SAMPLE_RATE"
    )
    judge_idle_minutes: float = setting(
        30.0,
        "A session is judged once nothing has happened in it for so long.",
        env="TURNWISE_JUDGE_IDLE_MINUTES",
    )
    judge_window_days: float = setting(
        7.0, "Sessions that ended longer ago are not judged.", env="TURNWISE_JUDGE_WINDOW_DAYS"
    )
    judge_budget_usd: float = setting(
        5.0, "Most that judging may cost on a UTC day.", env="TURNWISE_JUDGE_BUDGET_USD"
    )
    judge_budgets: tuple[str, ...] = setting(
        (),
        "The same for sessions of organization paths, as `PATH=USD`; all that apply must hold.",
        env="TURNWISE_JUDGE_BUDGETS",
    )
    judge_concurrency: int = setting(
        4,
        "Requests at once where answers are waited for.",
        env="TURNWISE_JUDGE_CONCURRENCY",
    )
    judge_interval_seconds: float = setting(
        300.0,
        "Pause between two looks for sessions to judge and batches that ended.",
        env="TURNWISE_JUDGE_INTERVAL_SECONDS",
    )
    judge_min_kappa: float = setting(
        0.4,
        "A judge may decide something when the low end of the 95 % interval of its kappa with "
        "people reaches this.",
        env="TURNWISE_JUDGE_MIN_KAPPA",
    )
    judge_min_labelled_sessions: int = setting(
        100,
        "A judge may decide something when so many of its sessions were labelled by people.",
        env="TURNWISE_JUDGE_MIN_LABELLED_SESSIONS",
    )
    judge_max_flip_share: float = setting(
        0.05,
        "Share of anchor items on which the same judge may say otherwise without being called "
        "another.",
        env="TURNWISE_JUDGE_MAX_FLIP_SHARE",
    )
    quality_measure: str = setting(
        "quality",
        "Score that the gate takes for a session's quality: `quality`, `judge_faithfulness` or "
        "`judge_tool_use`.",
        env="TURNWISE_QUALITY_MEASURE",
    )
    anthropic_base_url: str = setting(
        "https://api.anthropic.com", "Upstream of the edge proxy.", env="ANTHROPIC_BASE_URL"
    )
    billing_base_url: str = setting(
        "https://api.anthropic.com",
        "The provider's Admin API, for its usage and cost reports; no other address is called.",
        env="TURNWISE_BILLING_BASE_URL",
    )
    admin_api_key: str = setting(
        "",
        "Key of the provider's Admin API, for its usage and cost reports.",
        env="ANTHROPIC_ADMIN_KEY",
        secret=True,
    )
    reconciliation_limit_share: float = setting(
        0.02,
        "Reconciliation fails when the residual is more than this share of what was billed.",
        env="TURNWISE_RECONCILIATION_LIMIT_SHARE",
    )
    lake_target_bytes: int = setting(
        128 * 1024 * 1024,
        "Compaction: files of a day are joined up to this size.",
        env="TURNWISE_LAKE_TARGET_BYTES",
    )
    lake_settle_share: float = setting(
        0.25,
        "Compaction: a day is settled once this share of its rows was added since.",
        env="TURNWISE_LAKE_SETTLE_SHARE",
    )
    lake_vacuum_hours: int = setting(
        168,
        "Files that the newest version does not name go after this long; until then older versions "
        "can be read and restored. Longer than the longest query.",
        env="TURNWISE_LAKE_VACUUM_HOURS",
    )
    lake_checkpoint_commits: int = setting(
        20,
        "Commits between two checkpoints of a table's log.",
        env="TURNWISE_LAKE_CHECKPOINT_COMMITS",
    )
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def lake_uri(self) -> str:
        return self.store_uri or str(self.data_dir / "lake")

    @property
    def control_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'control.db'}"

    def environment(self) -> dict[str, str]:
        """This process's environment with these settings in it, for a child process."""
        ours = {knob.metadata["env"]: getattr(self, knob.name) for knob in knobs()}
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in ours and name != "TURNWISE_SETTINGS"
        }
        return kept | {name: _written(value) for name, value in ours.items()}

    def rows(self) -> list[dict[str, str]]:
        """For people: name, environment name, value (secrets as "set"), where from, meaning."""
        return [
            {
                "name": knob.name,
                "env": knob.metadata["env"],
                "value": self._shown(knob.name, secret=knob.metadata["secret"]),
                "from": self.origins.get(knob.name, "default"),
                "meaning": knob.metadata["doc"],
            }
            for knob in knobs()
        ]

    def _shown(self, name: str, *, secret: bool) -> str:
        value = _written(getattr(self, name))
        return _SHOWN if secret and value else value


def _written(value: Any) -> str:
    """A value as the environment holds it."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def knobs() -> list[Any]:
    """The dataclass fields that are settings."""
    return [knob for knob in fields(Settings) if "env" in knob.metadata]


def load_settings(
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
    **given: Any,
) -> Settings:
    """Reads the settings; ``given`` (the command line's own flags) rules over all.

    Raises :class:`BadInput` naming the setting for an unknown key or a value of the wrong type.
    """
    environment = os.environ if environment is None else environment
    if file is None and environment.get("TURNWISE_SETTINGS"):
        file = Path(environment["TURNWISE_SETTINGS"])
    from_file = _read_file(file) if file else {}
    known = {knob.name: knob for knob in knobs()}
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in from_file:
        if name not in known:
            raise BadInput(
                f"{file}: unknown setting {name!r}.", fix="`turnwise settings show` lists them."
            )
    for name, knob in known.items():
        env = knob.metadata["env"]
        if given.get(name) is not None:
            values[name], origins[name] = _convert(name, knob, given[name]), "command line"
        elif environment.get(env, "") != "":
            values[name], origins[name] = _convert(env, knob, environment[env]), env
        elif name in from_file:
            values[name], origins[name] = _convert(name, knob, from_file[name]), str(file)
    return Settings(**values, origins=origins)


def _convert(name: str, knob: Any, value: Any) -> Any:
    kind = str(knob.type)
    try:
        if kind == "Path":
            return Path(value).expanduser()
        if kind.startswith("tuple"):
            parts = value.split(",") if isinstance(value, str) else value
            return tuple(part.strip() for part in parts if part.strip())
        if kind in ("int", "float"):
            number = int(value) if kind == "int" else float(value)
            if number <= 0:
                raise ValueError("it must be more than 0")
            return number
        return str(value)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name}={value!r} is not a {kind}.", why=str(error)) from error


def _read_file(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"The settings file {file} can't be read.", why=str(error)) from error
    if not isinstance(document, dict):
        raise BadInput(f"The settings file {file} must hold one JSON object.")
    return document


def parse_address(address: str, name: str) -> tuple[str, int]:
    """``host:port`` as a pair. Raises :class:`BadInput`."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65_535:
        raise BadInput(f"{name}={address!r} is no address.", fix="Write HOST:PORT.")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
