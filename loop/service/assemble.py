"""Builds the parts from the settings: the only place where clients and stores are made."""

from __future__ import annotations

import os
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from collectors.attribution import Attribution
from collectors.content_modes import open_hash_key
from collectors.content_rules import ContentModes, parse_modes
from collectors.drainer import Drainer
from collectors.journal import Journal, JournalLimits, has_records
from collectors.quarantine import Quarantine
from collectors.screening import Screen
from loop.access.callers import CallerCheck
from loop.access.content_mode_store import ContentModeStore
from loop.access.credentials import CredentialStore
from loop.access.directory import Directory, DirectorySource
from loop.access.organization_store import OrganizationStore
from loop.access.records import AccessLog
from loop.control.intake_log import IntakeLog
from loop.control.judge_calls import JudgeCalls
from loop.control.labels import LabelStore
from loop.control.lake_records import ErasureLog, LegalHolds
from loop.control.retention_records import RetentionRecords
from loop.control.stage_progress import StageLog
from loop.control.store import open_control_store
from loop.domain.content_modes import parse_mode
from loop.domain.errors import Conflict
from loop.domain.money import PriceBook
from loop.lake import Lake
from loop.lake.compaction import LakePolicy
from loop.ledger.billing_store import BillingStore
from loop.ledger.budgets import BudgetBook
from loop.ledger.charge_table import ChargeTable
from loop.ledger.charge_versions import ChargeVersionStore
from loop.ledger.notices import NoticeQueue
from loop.ledger.price_book_store import PriceBookStore
from loop.ledger.prices import load_price_book
from loop.ledger.pricing import Pricing
from loop.ledger.statement_store import StatementStore
from loop.service.budget_stage import BudgetKeeper
from loop.service.settings import Settings
from loop.service.work_progress import WorkProgress
from optimizers.run_records import RunRecords
from routing_policies.publication import PublicationSource
from routing_policies.rollout import RolloutController
from routing_policies.signing import open_signers
from routing_policies.version_store import VersionStore

if TYPE_CHECKING:
    from evaluators.judge.model_api import JudgeApi

CATCH_UP_PAUSE_SECONDS = 0.05


class Parts:
    """The assembled service. Each part is made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = threading.Event()
        """Set once the service is to end: long passes begin no new batch."""
        self._content_modes: tuple[Directory, ContentModes] | None = None

    @cached_property
    def lake(self) -> Lake:
        options = {}
        if self.settings.s3_endpoint:
            options["AWS_ENDPOINT_URL"] = self.settings.s3_endpoint
        settings = self.settings
        policy = LakePolicy(
            settle_share=settings.lake_settle_share,
            target_bytes=settings.lake_target_bytes,
            vacuum_hours=settings.lake_vacuum_hours,
            checkpoint_commits=settings.lake_checkpoint_commits,
        )
        return Lake.open(settings.lake_uri, options or None, policy)

    @cached_property
    def engine(self) -> Engine:
        return open_control_store(self.settings.control_url)

    @cached_property
    def price_books(self) -> PriceBookStore:
        extra = self.settings.price_book
        return PriceBookStore(self.engine, load_price_book(Path(extra) if extra else None))

    @property
    def price_book(self) -> PriceBook:
        """The price book in force."""
        return self.price_books.in_force()

    @cached_property
    def statements(self) -> StatementStore:
        return StatementStore(self.engine, self.lake, self.is_rolled_up)

    def is_rolled_up(self, from_day: str, until_day: str) -> bool:
        """Whether charges were rolled up since the last turn of these days was written."""
        done = self.stage_log.read("charge").revision
        newest = self.lake.newest_revision(from_day, until_day)
        return done > 0 and newest is not None and done >= newest

    @cached_property
    def billing(self) -> BillingStore:
        return BillingStore(self.engine)

    @cached_property
    def charge_table(self) -> ChargeTable:
        return ChargeTable(self.lake, self.charge_versions)

    @cached_property
    def charge_versions(self) -> ChargeVersionStore:
        return ChargeVersionStore(self.engine)

    @cached_property
    def journal(self) -> Journal:
        limits = JournalLimits(
            min_free_bytes=self.settings.min_free_bytes,
            max_used_percent=self.settings.max_disk_used_percent,
            max_quarantine_bytes=self.settings.max_quarantine_bytes,
        )
        parse_mode(self.settings.content_mode, "content_mode")  # a wrong one is told at the start
        parse_modes(self.settings.content_modes, "content_modes")
        return Journal(self.journal_dir, limits, Screen(self.content_modes))

    def content_modes(self) -> ContentModes:
        """What may be stored of texts now. Raises :class:`Unavailable` while that can't be read."""
        directory = self.callers.directory()
        if self._content_modes is None or self._content_modes[0] is not directory:
            self._content_modes = (directory, self._modes_by(directory))
        return self._content_modes[1]

    def _modes_by(self, directory: Directory) -> ContentModes:
        settings = self.settings
        default = parse_mode(settings.content_mode, "content_mode")
        by_path = parse_modes(settings.content_modes, "content_modes")
        key = b""
        if "hashed" in {default, *by_path.values(), *directory.content_modes.values()}:
            key = open_hash_key(settings.data_dir / "keys", settings.content_hash_key)
        return ContentModes(
            default, by_path, settings.org_attributes, hash_key=key, directory=directory
        )

    @cached_property
    def quarantine(self) -> Quarantine:
        return Quarantine(self.settings.data_dir / "quarantine", self.settings.max_quarantine_bytes)

    @property
    def journal_dir(self) -> Path:
        return self.settings.data_dir / "journal"

    @cached_property
    def drainer(self) -> Drainer:
        return Drainer(
            self.journal,
            self.lake,
            Pricing(self.price_books, self.charge_versions),
            self.attribution,
            intake=self.intake_log,
        )

    def attribution(self) -> Attribution:
        """What attribution goes by now."""
        return Attribution(
            org_path_attributes=self.settings.org_attributes, directory=self.directories.current()
        )

    @cached_property
    def access_log(self) -> AccessLog:
        return AccessLog(self.engine)

    @cached_property
    def credentials(self) -> CredentialStore:
        return CredentialStore(self.access_log)

    @cached_property
    def organization(self) -> OrganizationStore:
        return OrganizationStore(self.access_log)

    @cached_property
    def content_mode_store(self) -> ContentModeStore:
        return ContentModeStore(self.access_log)

    @cached_property
    def directories(self) -> DirectorySource:
        return DirectorySource(self.access_log)

    @cached_property
    def callers(self) -> CallerCheck:
        return CallerCheck(self.settings.api_token, self.directories, self.credentials)

    @cached_property
    def intake_log(self) -> IntakeLog:
        return IntakeLog(self.engine)

    @cached_property
    def holds(self) -> LegalHolds:
        return LegalHolds(self.engine)

    @cached_property
    def erasures(self) -> ErasureLog:
        return ErasureLog(self.engine)

    @cached_property
    def retention(self) -> RetentionRecords:
        return RetentionRecords(self.engine)

    @cached_property
    def work(self) -> WorkProgress:
        return WorkProgress()

    @cached_property
    def stage_log(self) -> StageLog:
        return StageLog(self.engine)

    @cached_property
    def versions(self) -> VersionStore:
        store = VersionStore(self.engine)
        store.install_baseline(
            self.settings.channel, not_after_seconds=self.settings.publication_lifetime_seconds
        )
        return store

    @cached_property
    def publications(self) -> PublicationSource:
        return PublicationSource(self.versions, open_signers(self.settings.data_dir / "keys"))

    @cached_property
    def rollouts(self) -> RolloutController:
        lifetime = self.settings.publication_lifetime_seconds
        return RolloutController(self.versions, not_after_seconds=lifetime)

    @cached_property
    def budgets(self) -> BudgetBook:
        return BudgetBook(self.engine)

    @cached_property
    def notices(self) -> NoticeQueue:
        return NoticeQueue(self.engine)

    @cached_property
    def budget_keeper(self) -> BudgetKeeper:
        return BudgetKeeper(
            self.settings,
            lake=self.lake,
            budgets=self.budgets,
            notices=self.notices,
            versions=self.versions,
            stage_log=self.stage_log,
        )

    @cached_property
    def runs(self) -> RunRecords:
        return RunRecords(self.engine)

    @cached_property
    def labels(self) -> LabelStore:
        return LabelStore(self.engine)

    @cached_property
    def judge_calls(self) -> JudgeCalls:
        return JudgeCalls(self.engine)

    def judge_api(self) -> JudgeApi:
        """A client of the model API, to be closed. Raises :class:`BadInput` without a key."""
        from evaluators.judge.model_api import JudgeApi  # its library takes a second to load

        return JudgeApi(self.settings.judge_base_url, self.settings.anthropic_api_key)

    def catch_up(self, wait_seconds: float = 10.0) -> bool:
        """Brings what is in the journal into the lake, or waits for the process that does so;
        whether all of it is there. Afterwards any process may drain.

        Raises :class:`Unavailable` when the lake can't be written.
        """
        deadline = time.monotonic() + wait_seconds
        while has_records(self.journal_dir):
            if time.monotonic() > deadline:
                return False
            try:
                self.drainer.drain_once()
                self.drainer.close()
            except Conflict:
                pass
            time.sleep(CATCH_UP_PAUSE_SECONDS)
        return True

    def close(self) -> None:
        """Ends the journal after what it was given is on disk, and lets go of the database."""
        if "callers" in self.__dict__:
            self.callers.close()
        if "drainer" in self.__dict__:
            self.drainer.close()
        if "journal" in self.__dict__:
            self.journal.close()
        if "engine" in self.__dict__:
            self.engine.dispose()


def assemble(settings: Settings) -> Parts:
    """The parts of these settings, with the data folder made where it is missing."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    os.chmod(settings.data_dir, 0o700)
    return Parts(settings)
