"""``turnwise <noun> <verb>``: the entry point of the command line.

Exit codes: 0 done, 1 a check came out negative, 2 bad input, 3 refused by a rule or overtaken by
another change, 4 a part is unavailable or its data corrupt, 5 inconclusive.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from loop import __version__
from loop.domain.errors import TurnwiseError
from loop.service.commands import (
    budgets,
    intake,
    organization,
    policies,
    policy_copies,
    rollouts,
    runs,
    sessions,
    statements,
    tokens,
)
from loop.service.commands.bifrost import push_bifrost
from loop.service.commands.export import export
from loop.service.commands.import_bodies import bodies
from loop.service.commands.import_transcripts import import_group
from loop.service.commands.judge import judge, labels
from loop.service.commands.lake import lake
from loop.service.commands.operations import (
    collect,
    demo,
    doctor,
    drain,
    edge,
    serve,
    settings_group,
)
from loop.service.commands.prices import prices
from loop.service.commands.replays import replay
from loop.service.commands.retention import retention
from loop.service.commands.ship import ship
from loop.service.printing import plain


class TurnwiseGroup(click.Group):
    """Prints a :class:`TurnwiseError` as its three lines and ends with its exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except TurnwiseError as error:
            click.echo(f"turnwise: {plain(error.what)}", err=True)
            for line in (error.why, error.fix):
                if line:
                    click.echo(f"  {plain(line)}", err=True)
            context.exit(error.exit_code)


@click.group(cls=TurnwiseGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="turnwise")
@click.option("--verbose", "-v", is_flag=True, help="Log what happens to stderr.")
def turnwise(verbose: bool) -> None:
    """Trace, evaluate and optimize Claude Code turns in a closed loop.

    Data goes to stdout, talk to stderr. Exit codes: 0 done, 1 a check came out negative, 2 bad
    input, 3 refused, 4 unavailable, 5 inconclusive.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


turnwise.add_command(serve)
turnwise.add_command(collect)
turnwise.add_command(drain)
turnwise.add_command(edge)
turnwise.add_command(demo)
turnwise.add_command(doctor)
import_group.add_command(bodies)
turnwise.add_command(import_group, "import")
turnwise.add_command(ship)
turnwise.add_command(intake.intake)
turnwise.add_command(intake.conflict)
turnwise.add_command(intake.quarantine)
sessions.spend.add_command(statements.statement)
sessions.spend.add_command(statements.reconcile)
turnwise.add_command(sessions.spend)
turnwise.add_command(prices)
lake.add_command(retention)
turnwise.add_command(lake)
turnwise.add_command(export)
turnwise.add_command(sessions.session)
turnwise.add_command(budgets.budget)
turnwise.add_command(sessions.evaluate)
turnwise.add_command(judge)
turnwise.add_command(labels)
turnwise.add_command(sessions.cluster)
turnwise.add_command(runs.optimize)
turnwise.add_command(runs.run)
policies.policy.add_command(push_bifrost)
policies.policy.add_command(policy_copies.verify)
policies.policy.add_command(policy_copies.export)
policies.policy.add_command(policy_copies.history)
turnwise.add_command(policies.policy)
turnwise.add_command(replay)
turnwise.add_command(rollouts.rollout)
turnwise.add_command(tokens.token)
turnwise.add_command(organization.org)
turnwise.add_command(settings_group, "settings")


def main() -> None:
    turnwise.main(prog_name="turnwise")
