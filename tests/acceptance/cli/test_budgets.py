"""`vital-tracking budgets` and `alerts` as people and scripts use them, on a real database."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
import typer
from typer.testing import CliRunner

from tests.acceptance.cli.helpers import Cli, Done, Several, fine, refused
from tests.acceptance.helpers import COMMAND, environment, run
from tests.integration.helpers import Rows, only
from tests.sql.helpers import a_call
from tests.support.stores import ScriptedStore
from vital_tracking.cli.app import app
from vital_tracking.cli.budgets import alerts as watching
from vital_tracking.cli.render import options
from vital_tracking.cli.render.console import share_bar
from vital_tracking.errors import StoreUnavailable
from vital_tracking.queries.budgets import CheckedWindow, verdict
from vital_tracking.stores.postgres import PostgresStore

_calls = itertools.count(1)


@pytest.fixture
def spend(store: PostgresStore) -> Callable[..., None]:
    """Records a call, by default of user u-1 for 60 cents and 120 tokens."""

    def record(cost: str = "0.60", **columns: Any) -> None:
        amounts = {"input_cost": cost, "output_cost": "0", "total_cost": cost}
        call = a_call(
            next(_calls), **{"created_at": datetime.now(UTC).isoformat(), "user_id": "u-1", **amounts, **columns}
        )
        report = store.call("record_calls_v1", calls=json.dumps([call]))
        assert report["inserted"] == 1, report

    return record


@pytest.fixture
def budget(store: PostgresStore) -> Callable[..., int]:
    """Makes a budget; by default a dollar a day for each user."""

    def make(**columns: Any) -> int:
        wanted = {"entity_type": "user", "daily_limit": "1", **columns}
        return int(store.call("set_budget_v1", budget=json.dumps(wanted))["id"])

    return make


def grant(store: PostgresStore, number: int, entity: str, amount: str) -> dict[str, Any]:
    """Ask for a grant as a process does, and tell the answer."""
    wanted = {"budget": number, "entity": entity, "unit": amount, "want": amount, "pass": False, "have": {}}
    asks = [{"max_wait": 0, "ahead": False, "windows": [wanted]}]
    answer: dict[str, Any] = store.call("acquire_grants_v1", holder="somebody", asks=json.dumps(asks))["answers"][0]
    return answer


def said_in(done: Done, *, code: int = 0) -> str:
    assert (done.returncode, done.stderr) == (code, ""), done.stdout + done.stderr
    return done.stdout


OPTIONS = {
    "budgets": ["list", "set", "raise", "remove", "check", "windows"],
    "budgets list": ["--organization", "--json", "--csv"],
    "budgets set": [
        *(
            "--minute",
            "--daily",
            "--monthly",
            "--total",
            "--metric",
            "--action",
            "--every",
            "--downgrade-to",
            "--thresholds",
        ),
        *(
            "--timezone",
            "--organization",
            "--enforce",
            "--shadow",
            "--strict",
            "--no-strict",
            "--when-unavailable",
            "--instead",
            "--json",
        ),
    ],
    "budgets raise": ["--until", "--metric", "--action", "--organization", "--json"],
    "budgets remove": ["--yes"],
    "why": ["--days", "--limit", "--json"],
    "budgets check": [
        *(
            "--user",
            "--service",
            "--organization",
            "--tier",
            "--session",
            "--agent",
            "--workflow",
            "--panel",
            "--solution",
        ),
        *("--model", "--cost", "--tokens", "--json", "--csv"),
    ],
    "budgets windows": ["--entity", "--organization", "--all", "--limit", "--json", "--csv"],
    "alerts": ["list", "watch"],
    "alerts list": ["--days", "--organization", "--all", "--limit", "--json", "--csv"],
    "alerts watch": ["--every", "--organization", "--json"],
}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_every_option(command: str) -> None:
    """Nobody would find what there is."""
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert (done.exit_code, done.exception) == (0, None)
    for option in OPTIONS[command]:
        assert option in done.output


def test_without_any_budget_it_says_what_to_run(several: Several, rows: Rows) -> None:
    """An empty table would leave a newcomer with no idea of what comes next, and programs need JSON all the same."""
    commands = [
        ["budgets", "list"],
        ["budgets", "windows"],
        ["budgets", "windows", "--entity", "u-1"],
        ["alerts", "list"],
        ["budgets", "check", "--user", "u-1"],
    ]
    for done in several(*commands):
        advice = said_in(done).strip()
        assert "\n" not in advice
        command = shlex.split(advice.partition("Set one: ")[2])
    *empty, columns, made, windows, entity, alerts = several(
        ["budgets", "list", "--json"],
        ["budgets", "windows", "--json"],
        ["alerts", "list", "--json"],
        ["budgets", "list", "--csv"],
        command[1:],
        ["budgets", "windows"],
        ["budgets", "windows", "--entity", "u-1"],
        ["alerts", "list"],
    )
    assert [json.loads(fine(done)) for done in empty] == [[], [], []]
    assert fine(columns).startswith("id,organization_id,entity_type,entity_id,metric,")
    assert "made budget 1" in fine(made)
    assert "each begins with the first call" in fine(windows)
    assert "No window of 'u-1'" in fine(entity)
    assert "No alerts in the last 7 days" in fine(alerts)
    assert only(rows("select action, daily_limit from budget_limits")) == {"action": "block", "daily_limit": 5}


# Setting


def test_a_budget_is_stored_and_said_in_one_sentence(several: Several, rows: Rows) -> None:
    """An admin would not see what the options add up to, or would have to look up how to go on."""
    line = "budgets set user --daily 5 --monthly 100 --action block --timezone europe/berlin"
    said = fine(several(shlex.split(line))[0])
    assert "Each user may spend $5 a day and $100 a month; over that, calls are blocked." in said.splitlines()
    assert "Its days and months begin at midnight in Europe/Berlin." in said
    assert "Alerts are raised at 50 %, 80 % and 100 %." in said
    assert re.search(
        r"^ 1 +each user +\$5 a day and \$100 a month +block +50 %, 80 %, 100 % +Europe/Berlin", said, re.MULTILINE
    )
    stored = only(rows("select * from budget_limits"))
    assert (stored["entity_type"], stored["entity_id"], stored["organization_id"]) == ("user", "*", None)
    assert (stored["daily_limit"], stored["monthly_limit"], stored["minute_limit"], stored["total_limit"]) == (
        5,
        100,
        None,
        None,
    )
    assert (stored["action"], stored["metric"], stored["timezone"]) == ("block", "cost_usd", "Europe/Berlin")
    assert (stored["enforce"], stored["strict"], stored["when_unavailable"]) == (True, False, "allow")

    following = [shlex.split(text)[1:] for text in said.splitlines() if text.startswith("  vital-tracking ")]
    assert [words[1] for words in following] == ["windows", "check", "remove"]
    windows, check, _ = several(*following)
    fine(windows)
    assert "A call passes, up to $5." in fine(check)


def test_every_option_of_a_budget_is_stored(several: Several, rows: Rows) -> None:
    """An option would be taken and come to nothing."""
    throttle, downgrade, bare = several(
        shlex.split(
            "budgets set tier tier_3 --minute 1000 --total 5_000_000 --metric tokens --action throttle --every 500ms "
            "--thresholds 90%,0.25 --organization acme --shadow --strict --when-unavailable deny --json"
        ),
        shlex.split(
            "budgets set session s-1 --daily $0.125 --action downgrade --downgrade-to gpt-4o-mini --thresholds none"
        ),
        shlex.split("budgets set model gpt-4o --metric calls --daily 0 --action downgrade"),
    )
    first, second, third = rows("select * from budget_limits order by id")
    assert json.loads(fine(throttle))["throttle_interval_s"] == "0.500000"
    assert (first["entity_id"], first["organization_id"], first["metric"]) == ("tier_3", "acme", "tokens")
    assert (first["minute_limit"], first["total_limit"], first["daily_limit"]) == (1000, 5_000_000, None)
    assert (first["action"], first["throttle_interval"]) == ("throttle", timedelta(milliseconds=500))
    assert first["alert_thresholds"] == [Decimal("0.25"), Decimal("0.9")]
    assert (first["enforce"], first["strict"], first["when_unavailable"]) == (False, True, "deny")
    assert "only models no dearer than gpt-4o-mini pass" in fine(downgrade)
    assert (second["downgrade_to"], second["alert_thresholds"], second["daily_limit"]) == (
        "gpt-4o-mini",
        [],
        Decimal("0.125"),
    )
    assert "Model gpt-4o may make 0 calls a day; over that, only the cheaper models that the code offers pass." in fine(
        bare
    )
    assert "Name one with --downgrade-to MODEL" in bare.stdout
    assert (third["downgrade_to"], third["daily_limit"]) == (None, 0)


def test_setting_again_changes_what_is_given_and_no_more(several: Several, rows: Rows) -> None:
    """Whoever raises a limit would lose the zone, or make a second budget beside the first."""
    done = several(
        shlex.split("budgets set user u-1 --daily 5 --action throttle --every 2m --timezone Asia/Kolkata"),
        shlex.split("budgets set user u-1 --monthly 50 --action throttle --shadow"),
        shlex.split("budgets set user u-1 --daily none --action throttle --enforce"),
        shlex.split("budgets set user u-1 --action throttle"),
        shlex.split("budgets set user u-1 --monthly none --action throttle"),
    )
    assert [fine(each).splitlines()[0] for each in done[:4]] == [
        *("made budget 1", "changed budget 1", "changed budget 1", "as it was: budget 1"),
    ]
    assert "a budget needs a limit" in refused(done[4], code=2)
    stored = only(rows("select * from budget_limits"))
    assert (stored["daily_limit"], stored["monthly_limit"], stored["enforce"]) == (None, 50, True)
    assert (stored["throttle_interval"], stored["timezone"]) == (timedelta(minutes=2), "Asia/Kolkata")


def test_a_second_action_is_said_to_stand_beside_the_first(several: Several) -> None:
    """Whoever sets `block` beside `throttle` would think that the first is gone."""
    _, ladder, strict, never = several(
        shlex.split("budgets set user --daily 4 --action throttle"),
        shlex.split("budgets set user --daily 5 --action block"),
        shlex.split("budgets set organization acme --daily 5 --strict --when-unavailable deny"),
        shlex.split("budgets set agent cardio --daily 200 --monthly 100"),
    )
    assert "Beside it: budget 1, $4 a day, throttle: one in 10 s. Each acts at its own limit." in fine(ladder)
    assert "calls must limit their answers (max_tokens)" in fine(strict)
    assert "While the database is away, its calls are denied." in strict.stdout
    assert "the limit for the day is not below that for the month, so it never acts" in fine(never)


WRONG = {
    "usr --daily 5": "entity type 'usr' is unknown; did you mean user? One of: organization, service,",
    "user '' --daily 5": "name one",
    "user --daily -5": "--daily must be an amount such as 5 or 0.50, not negative",
    "user --daily=nan": "--daily must be",
    "user --monthly inf": "--monthly must be",
    "user --total 1e400": "--total must be an amount such as 5 or 0.50, not negative, not too large",
    "user --minute 1e-20": "--minute must be",
    "user --minute five": "--minute must be",
    "user --metric tokens --daily 1.5": "--daily must be a whole number of tokens, such as 100000",
    "user": "a budget needs a limit: give --minute, --daily, --monthly or --total",
    "user --daily none": "a budget needs a limit",
    "user --daily 5 --metric dollars": "--metric 'dollars' is unknown. One of: cost_usd, tokens, calls",
    "user --daily 5 --action blok": "--action 'blok' is unknown; did you mean block? One of: alert, throttle,",
    "user --daily 5 --every 10s": "--every goes with --action throttle",
    "user --daily 5 --action throttle --every 0s": "--every takes a span such as 500ms, 10s or 2m",
    "user --daily 5 --action throttle --every 25h": "at most a day",
    "user --daily 5 --action throttle --every soon": "--every takes a span",
    "user --daily 5 --downgrade-to gpt-4o": "--downgrade-to goes with --action downgrade",
    "user --daily 5 --action downgrade --downgrade-to ''": "--downgrade-to is empty",
    "user --daily 5 --thresholds 0.5,x": "--thresholds takes shares of the limit such as 0.5,0.8,1.0",
    "user --daily 5 --thresholds 0": "--thresholds takes",
    "user --daily 5 --thresholds 80": "up to 10",
    "user --daily 5 --thresholds 1,2,3,4,5,6,7,8,9,1.1,1.2": "at most 10 shares",
    "user --daily 5 --timezone Europe/Berln": "did you mean Europe/Berlin",
    "user --daily 5 --timezone Calcuta": "did you mean Asia/Calcutta?",
    "user --daily 5 --timezone 'new york'": "did you mean America/New_York?",
    "user --daily 5 --timezone Mars": "is no IANA time zone. It looks like Europe/Berlin",
    "user --daily 5 --when-unavailable maybe": "--when-unavailable 'maybe' is unknown. One of: allow, deny",
    "user --daily 5 --organization ''": "--organization is empty",
    "service workfow --daily 5": "service 'workfow' is unknown; did you mean workflow?",
    f"user {'u' * 300} --daily 5": "longer than 256",
}


def test_a_wrong_option_is_refused_with_what_to_write(several: Several, rows: Rows) -> None:
    """A typing error would become a budget that never acts, or come back as a SQLSTATE."""
    for done, hint in zip(
        several(*(["budgets", "set", *shlex.split(line)] for line in WRONG)), WRONG.values(), strict=True
    ):
        assert hint in refused(done, code=2)
    assert rows("select * from budget_limits") == []


def test_a_zone_is_taken_by_its_proper_name() -> None:
    """The database and this machine would disagree on when a day ends."""
    assert [options.zone(text) for text in ("UTC", "europe/berlin", "America/new york")] == [
        *("UTC", "Europe/Berlin", "America/New_York"),
    ]
    assert options.span("1.5s", "--every") == Decimal("1.5")
    for fixed in ("CET", "eet", "MET", "WET"):
        with pytest.raises(typer.BadParameter, match="without summer time: name a city, such as Europe/"):
            options.zone(fixed)
    with pytest.raises(typer.BadParameter):
        options.named("u\0", "the id")


# Listing and removing


@pytest.fixture
def three(budget: Callable[..., int], spend: Callable[..., None]) -> None:
    """Three budgets: each user's dollar a day blocks, acme's tokens throttle, and acme has a total that only watches."""
    budget(action="block", timezone="Europe/Berlin")
    columns = {
        "metric": "tokens",
        "daily_limit": None,
        "monthly_limit": "100",
        "action": "throttle",
        "organization_id": "acme",
    }
    budget(entity_type="tier", entity_id="tier_1", **columns)
    budget(
        entity_type="organization", entity_id="acme", daily_limit=None, total_limit="6", action="block", enforce=False
    )
    spend(organization_id="acme", agent_tier="tier_1")
    spend("0.20", user_id="[/red] \x1b[31mu-2")


def test_the_list_shows_what_each_budget_does_and_how_far_it_is(three: None, several: Several) -> None:
    """An admin would have to read the table with SQL, and a name in it could break or recolour the terminal."""
    table, own, other, as_json, as_csv = several(
        ["budgets", "list"],
        ["budgets", "list", "--organization", "acme"],
        ["budgets", "list", "--organization", "nobody"],
        ["budgets", "list", "--organization", "acme", "--json"],
        ["budgets", "list", "--csv"],
    )
    said = fine(table)
    assert re.search(
        r"^ 1 +each user +\$1 a day +block +50 %, 80 %, 100 % +Europe/Berlin +█{9}·{7} +60 %, day, u-1", said, re.M
    )
    assert re.search(r"^ 2 +tier tier_1 of organization acme +100 tokens a month +throttle: one in 10 s", said, re.M)
    assert re.search(r"^ 3 +organization acme +\$6 in all +block \(shadow\)", said, re.M)
    assert "each user" not in fine(own)
    assert "1 budget of no organization may count its calls too" in own.stdout
    assert "No budgets of organization nobody." in fine(other)
    assert [budget["id"] for budget in json.loads(fine(as_json))] == [3, 2]
    assert [budget["monthly_limit"] for budget in json.loads(as_json.stdout)] == [None, "100"]
    listed = list(csv.DictReader(io.StringIO(fine(as_csv))))
    assert {row["id"]: row["timezone"] for row in listed}["1"] == "Europe/Berlin"


def test_removing_a_budget_asks_first_and_says_what_is_gone(three: None, several: Several, rows: Rows) -> None:
    """A slip of the finger would lift the limit of everybody; or a script would take a missing id for success."""
    unknown, asked, removed, again, wrong = several(
        ["budgets", "remove", "1", "99"],
        ["budgets", "remove", "1"],
        ["budgets", "remove", "1", "3", "--yes"],
        ["budgets", "remove", "1", "-y"],
        ["budgets", "remove", "all"],
    )
    assert "There is no budget 99. See: vital-tracking budgets list" in refused(unknown)
    assert "Remove this budget?" in asked.stdout
    assert asked.returncode == 1
    said = fine(removed)
    assert "budget 1: Each user may spend $1 a day; over that, calls are blocked." in said
    assert "removed budget 1" in said
    assert "removed budget 3" in said
    assert "There is no budget 1." in refused(again)
    refused(wrong, code=2)
    assert [row["id"] for row in rows("select id from budget_limits")] == [2]


def test_removing_a_budget_goes_ahead_on_a_yes(three: None, database_url: str, tmp_path: Path, rows: Rows) -> None:
    """The question could not be answered."""
    done = subprocess.run(
        [str(COMMAND), "budgets", "remove", "2"],
        input="y\n",
        env=environment(tmp_path, VITAL_DATABASE_URL=database_url),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "removed budget 2" in fine(done)
    assert [row["id"] for row in rows("select id from budget_limits order by id")] == [1, 3]


# Windows


def test_windows_show_bars_what_is_left_and_when_each_ends(three: None, store: PostgresStore, several: Several) -> None:
    """Nobody would see at a glance who is about to run out, nor when it starts anew."""
    assert grant(store, 1, "u-1", "0.10")["admitted"]
    table, one, own, few, as_json, as_csv = several(
        ["budgets", "windows"],
        ["budgets", "windows", "--entity", "u-1"],
        ["budgets", "windows", "--organization", "acme"],
        ["budgets", "windows", "--limit", "1"],
        ["budgets", "windows", "--json"],
        ["budgets", "windows", "--csv"],
    )
    said = fine(table)
    midnight = datetime.now(ZoneInfo("Europe/Berlin")) + timedelta(days=1)
    ends = f"{midnight:%d %b} 00:00 {midnight:%Z}"
    line = rf"^ 1 +user u-1, day +█{{9}}▒{{2}}·{{5}} +60 % +\$0\.60 of \$1\.00 +\$0\.10 +\$0\.30 +{ends} +in .* +block"
    assert re.search(line, said, re.MULTILINE), said
    assert re.search(r"^ 2 +tier tier_1 of organization acme, month +█{16} +120 % +120 of 100 tokens +0 ", said, re.M)
    assert re.search(
        r"^ 3 +organization acme, in all +█·{15} +10 % +\$0\.60 of \$6\.00 +\$5\.40 +never +block \(shadow\)",
        said,
        re.M,
    )
    assert "[/red]  [31mu-2" in said
    assert "\x1b" not in said
    assert fine(one).count("user u-1") == 1
    assert "user u-1" not in fine(own)
    assert own.stdout.count("acme") == 2
    assert "The fullest 1; for more: --limit 10" in fine(few)
    listed = {(row["budget_id"], row["entity_id"]): row for row in json.loads(fine(as_json))}
    assert (listed[1, "u-1"]["spent"], listed[1, "u-1"]["granted"], listed[1, "u-1"]["left"]) == (
        "0.60",
        "0.10",
        "0.30",
    )
    assert (listed[3, "acme"]["ends_at"], listed[3, "acme"]["timezone"]) == (None, "UTC")
    assert listed[2, "tier_1"]["left"] == "-20"
    rows = list(csv.DictReader(io.StringIO(fine(as_csv))))
    assert {row["left"] for row in rows} == {"0.30", "0.80", "-20", "5.40"}


def test_windows_fit_into_a_narrow_terminal(
    three: None, store: PostgresStore, database_url: str, tmp_path: Path
) -> None:
    """In a terminal of 80 columns each word would be cut into pieces."""
    grant(store, 1, "u-1", "0.10")
    said = fine(run([str(COMMAND), "budgets", "windows"], tmp_path, VITAL_DATABASE_URL=database_url, COLUMNS=80))
    lines = said.splitlines()
    assert max(map(len, lines)) <= 80
    first = next(number for number, text in enumerate(lines) if "user u-1, day" in text)
    assert re.search(r"█{9}▒{2}·{5} +\$0\.60 of \$1\.00 +\d\d \w+ 00:00 CES?T$", lines[first])
    assert re.search(r"^ +block +60 % +\$0\.30 left, \$0\.10 +in (\d+ h )?\d+ min$", lines[first + 1])
    assert re.search(r" held *$", lines[first + 2])


def test_windows_that_have_ended_are_shown_when_asked_for(three: None, rows: Rows, several: Several) -> None:
    """Nobody could look up yesterday."""
    rows("update budget_windows set ends_at = now() - interval '1 minute' where entity_id = 'u-1' returning id")
    running, every = several(["budgets", "windows"], ["budgets", "windows", "--all"])
    assert "user u-1" not in fine(running)
    assert re.search(r"user u-1, day .* over +block", fine(every))


@pytest.mark.parametrize(
    ("spent", "granted", "limit", "plain", "colour"),
    [
        ("0", "0", "5", "·" * 16, "green"),
        ("0.001", "0", "5", "▏" + "·" * 15, "green"),
        ("0", "0.001", "5", "▒" + "·" * 15, "green"),
        ("4.5", "0.001", "5", "█" * 14 + "▒·", "yellow"),
        ("2.5", "0", "5", "█" * 8 + "·" * 8, "green"),
        ("2.5", "1.25", "5", "█" * 8 + "▒" * 4 + "·" * 4, "green"),
        ("4", "0", "5", "█" * 12 + "·" * 4, "yellow"),
        ("4.99", "0.01", "5", "█" * 15 + "▒", "yellow"),
        ("5", "0", "5", "█" * 16, "red"),
        ("50", "3", "5", "█" * 16, "red"),
        ("0", "0", "0", "█" * 16, "red"),
        ("-1", "0", "5", "·" * 16, "green"),
    ],
)
def test_the_bar_is_never_full_before_the_limit(spent: str, granted: str, limit: str, plain: str, colour: str) -> None:
    """Somebody with a cent left would look stopped, or somebody over the limit would look fine."""
    made = share_bar(Decimal(spent), Decimal(granted), Decimal(limit))
    assert made.plain == plain
    assert all(span.style == colour for span in made.spans if "█" in made.plain[span.start : span.end])
    assert [span.style for span in made.spans][-1:] == (
        ["dim"] if "·" in plain else ["cyan"] if "▒" in plain else [colour]
    )


# Checking


def test_a_check_says_what_a_call_would_meet(three: None, several: Several) -> None:
    """A script could not ask before it starts an expensive run."""
    passes, exact, blocked, unknown, shadow, throttled, other = several(
        shlex.split("budgets check --user u-1 --cost 0.05"),
        shlex.split("budgets check --user u-1 --cost 0.40"),
        shlex.split("budgets check --user u-1 --service workflow --cost 0.41"),
        shlex.split("budgets check --user u-1"),
        shlex.split("budgets check --organization acme --cost 7"),
        shlex.split("budgets check --tier tier_1 --organization acme --tokens 50 --cost 1"),
        shlex.split("budgets check --user u-9 --tier tier_1"),
    )
    assert "A call of $0.05 passes." in said_in(passes)
    assert re.search(r"user u-1, day +█{9}·{7} +60 % +\$0\.60 of \$1\.00 +\$0\.40 ", passes.stdout)
    assert "A call of $0.40 passes." in said_in(exact)
    refusal = said_in(blocked, code=1)
    assert (
        "A call of $0.41 would be blocked. Budget 1, user u-1: $0.40 of $1.00 left today. The window ends in" in refusal
    )
    assert "A call passes, up to $0.40." in said_in(unknown)
    assert "A call of $7 passes." in said_in(shadow)
    assert (
        "Were budget 3 enforced, it would be blocked. Budget 3, organization acme: $5.40 of $6.00 left in all."
        in shadow.stdout
    )
    waits = "A call of $1 and 50 tokens may have to wait: calls pass one every 10 s. Budget 2, tier tier_1 of organization acme"
    assert waits in said_in(throttled)
    assert "Budget 2" not in said_in(other), "the throttle is for acme's calls only"


def test_a_check_answers_programs_in_json_and_csv(three: None, several: Several) -> None:
    """A script would have to read a table."""
    blocked, passes, as_csv, nobody = several(
        shlex.split("budgets check --user u-1 --cost 2 --json"),
        shlex.split("budgets check --user u-1 --json"),
        shlex.split("budgets check --user u-1 --cost 2 --csv"),
        shlex.split("budgets check --json --workflow intake"),
    )
    answer = json.loads(said_in(blocked, code=1))
    assert (answer["action"], answer["blocked"]) == ("block", True)
    assert only(answer["windows"])["left"] == "0.40"
    assert json.loads(said_in(passes)) == {**answer, "action": None, "blocked": False}
    assert only(csv.DictReader(io.StringIO(said_in(as_csv, code=1))))["left"] == "0.40"
    assert json.loads(said_in(nobody)) == {"action": None, "blocked": False, "windows": []}


def test_a_check_of_a_call_that_cannot_be_is_refused(several: Several) -> None:
    """A typing error would read as: nothing stops it."""
    hints = {
        "": "say whose call it is, such as --user u-1 --service workflow",
        "--service workfow": "did you mean workflow?",
        "--user u-1 --cost -1": "--cost must be an amount",
        "--user u-1 --tokens 1.5": "--tokens must be a whole number",
        "--user ''": "--user is empty",
    }
    done = several(*(["budgets", "check", *shlex.split(line)] for line in hints))
    for each, hint in zip(done, hints.values(), strict=True):
        assert hint in refused(each, code=2)


def test_a_check_uses_the_organization_of_the_settings(three: None, several: Several) -> None:
    """It would leave out the budgets that this very process meets."""
    done = several(["VITAL_ORGANIZATION_ID=acme", "budgets", "check", "--tier", "tier_1"])[0]
    assert "tier tier_1 of organization acme" in said_in(done)


def a_window(action: str, left: str, **columns: Any) -> CheckedWindow:
    amount = Decimal(left)
    amounts = {"limit_amount": amount, "spent": Decimal(0), "granted": Decimal(0), "left": amount}
    window = {"action": action, "metric": "cost_usd", "enforce": True, "downgrade_to": None, **amounts, **columns}
    return cast("CheckedWindow", window)


@pytest.mark.parametrize(
    ("windows", "model", "action"),
    [
        ([], None, None),
        ([a_window("block", "1")], None, None),
        ([a_window("block", "0.99")], None, "block"),
        ([a_window("alert", "0"), a_window("throttle", "0"), a_window("downgrade", "0")], None, "downgrade"),
        ([a_window("alert", "0"), a_window("block", "5")], None, "alert"),
        ([a_window("block", "0", enforce=False), a_window("throttle", "0")], None, "throttle"),
        ([a_window("downgrade", "0", downgrade_to="small")], "large", "downgrade"),
        ([a_window("downgrade", "0", downgrade_to="small")], "small", None),
        ([a_window("block", "1", metric="calls")], None, None),
        ([a_window("block", "0", metric="calls")], None, "block"),
        ([a_window("block", "1", metric="tokens")], None, None),
        ([a_window("block", "0", metric="tokens")], None, "block"),
    ],
)
def test_the_strictest_budget_decides(windows: list[CheckedWindow], model: str | None, action: str | None) -> None:
    """A script would be told to go where the call is stopped."""
    assert verdict(windows, Decimal(1), None, model).action == action


def test_a_check_promises_what_admission_does(three: None, store: PostgresStore, several: Several) -> None:
    """What `check` promises would not be what happens."""
    over, exact = several(*(shlex.split(f"budgets check --user u-1 --cost {cost}") for cost in ("0.41", "0.40")))
    assert (over.returncode, exact.returncode) == (1, 0)
    assert not grant(store, 1, "u-1", "0.41")["admitted"]
    assert grant(store, 1, "u-1", "0.40")["admitted"]
    rest = several(shlex.split("budgets check --user u-1 --cost 0.01"))[0]
    assert "$0.00 of $1.00 left today" in said_in(rest, code=1), "another process holds it"


# Alerts


def test_alerts_are_listed(three: None, rows: Rows, several: Several) -> None:
    """Nobody could look up when a budget ran out, and who was told."""
    rows("update cost_alerts set delivered_at = now() where budget_id = 1 returning id")
    rows("update cost_alerts set created_at = now() - interval '3 days' where budget_id = 2 returning id")
    table, old, every, own, as_json, as_csv, few = several(
        ["alerts", "list"],
        ["alerts", "list", "--days", "1"],
        ["alerts", "list", "--all"],
        ["alerts", "list", "--organization", "acme"],
        ["alerts", "list", "--json"],
        ["alerts", "list", "--csv", "--all"],
        ["alerts", "list", "--limit", "1"],
    )
    said = fine(table)
    assert re.search(r" 1 +user u-1, day +50 % +\$0\.60 of \$1\.00, 60 % +block +yes", said)
    assert re.search(
        r" 2 +tier tier_1 of organization acme, month +100 % +120 of 100 tokens, 120 % +throttle +no", said
    )
    assert "superseded" not in said
    assert "tier_1" not in fine(old)
    assert fine(every).count("superseded") == 2
    assert "u-1" not in fine(own)
    assert [row["budget_id"] for row in json.loads(fine(as_json))] == [2, 1]
    assert len(list(csv.DictReader(io.StringIO(fine(as_csv))))) == 4
    assert "The newest 1; for more: --limit 10" in fine(few)


@pytest.fixture
def watch(database_url: str, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `alerts watch`; it is running when this returns."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        command = [str(COMMAND), "alerts", "watch", "--every", "20ms", *options]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(tmp_path, VITAL_DATABASE_URL=database_url), **pipes
        )
        started.append(process)
        assert process.stderr is not None
        assert "Ctrl-C ends" in process.stderr.readline()
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_watching_prints_new_alerts_until_it_is_stopped(
    budget: Callable[..., int], spend: Callable[..., None], watch: Callable[..., subprocess.Popen[str]]
) -> None:
    """Whoever watches a rollout would see old news, or nothing, and a traceback at the end."""
    budget(action="block")
    spend(user_id="u-old")
    people, program = watch(), watch("--json", "--organization", "acme")
    budget(organization_id="acme", action="block")
    spend(user_id="u-new", organization_id="acme")
    assert people.stdout is not None
    assert program.stdout is not None
    lines = [people.stdout.readline() for _ in range(2)]
    assert "user u-new has spent $0.60 of $1.00 today (60 %); at the limit: block." in lines[0]
    assert "user u-new of organization acme has spent" in lines[1]
    alert = json.loads(program.stdout.readline())
    assert (alert["entity_id"], alert["organization_id"], alert["spent"]) == ("u-new", "acme", "0.60")
    spend(user_id="u-last")
    assert "u-last" in people.stdout.readline()
    for process in (people, program):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=90)
        assert (process.returncode, out, err) == (0, "", "")


def test_watching_outlasts_an_outage(
    database_url: str, budget: Callable[..., int], spend: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A watch over night would end at the first restart of the database."""
    budget()

    def answers() -> Iterator[object]:
        yield ScriptedStore.THROUGH
        yield StoreUnavailable("The database is unavailable (on holiday).")
        yield StoreUnavailable("The database is unavailable (on holiday).")
        spend()

    store = ScriptedStore(PostgresStore(database_url), "cost_alerts_v1", answers())
    news = watching.new_alerts(store, 0.0)
    assert next(news)["entity_id"] == "u-1"
    news.close()
    store.close()
    said = capsys.readouterr().err.splitlines()
    assert said[1:] == ["The database is unavailable (on holiday). Trying again."]


# Databases that are not as they should be

COMMANDS = [
    ["budgets", "list"],
    ["budgets", "set", "user", "--daily", "5"],
    ["budgets", "remove", "1", "--yes"],
    ["budgets", "check", "--user", "u-1"],
    ["budgets", "windows"],
    ["alerts", "list"],
    ["alerts", "watch"],
]


def test_a_database_without_migrations_is_one_line(several: Several, postgres_server: Any) -> None:
    """The first thing that a newcomer sees would be an error of PostgreSQL."""
    postgres_server.create_database("no_budgets")
    url = f"VITAL_DATABASE_URL={postgres_server.url('no_budgets')}"
    try:
        for done in several(*([url, *command] for command in COMMANDS)):
            assert "vital-tracking migrate" in refused(done)
    finally:
        postgres_server.drop_database("no_budgets")


# Why


def test_why_tells_what_stopped_a_call_and_what_mends_it(
    cli: Cli, store: PostgresStore, spend: Callable[..., None], budget: Callable[..., int]
) -> None:
    """Somebody was refused: the answer is one command away, and the command that mends it is in it."""
    number = budget(action="block", daily_limit="1")
    spend("0.90")
    by = {
        "budget": number, "action": "block", "entity_type": "user", "entity_id": "u-1", "metric": "cost_usd",
        "period": "day", "limit": "1", "spent": "0.90", "held": "0.05", "needed": "0.2", "ends_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    spend("0", status="blocked", success=False, budget_action="block", blocked_by=by, model="gpt-4o")
    said = fine(cli("why", "u-1"))
    assert "of gpt-4o for user u-1" in said
    assert f"Budget {number}, block, of user u-1" in said
    assert (
        "At that moment $0.90 of $1.00 spent today, $0.05 held for other calls; this call might have taken $0.20."
        in said
    )
    assert "The window that runs now: $0.90 of $1.00 spent" in said
    assert "vital-tracking budgets raise user u-1 +0.20 --until tomorrow" in said
    [call] = json.loads(fine(cli("why", "u-1", "--json")))
    assert fine(cli("why", call["id"])) == said
    store.call("set_budget_v1", budget=json.dumps({"entity_type": "user", "action": "block", "daily_limit": "5"}))
    assert "A call like that would pass now." in fine(cli("why"))
    assert "No call of u-2 was blocked" in fine(cli("why", "u-2"))


# Exceptions


def admits(store: PostgresStore, number: int, entity: str, amount: str) -> bool:
    """Whether the database would let a process have so much."""
    return bool(grant(store, number, entity, amount)["admitted"])


def test_one_user_gets_more_in_place_of_what_each_has(
    cli: Cli, store: PostgresStore, rows: Rows, spend: Callable[..., None], budget: Callable[..., int]
) -> None:
    """A budget of one user beside that of each does not give more; --instead does, at once and until it is taken back."""
    number = budget(action="block", daily_limit="5")
    spend("4", user_id="vip")
    said = fine(cli("budgets", "set", "user", "vip", "--daily", "10", "--action", "block"))
    assert f"Mind: budget {number} gives each user $5 a day, which is reached first: block." in said
    command = "vital-tracking budgets set user vip --daily 10 --instead"
    assert command in said
    assert not admits(store, number, "vip", "2")
    said = fine(cli(*shlex.split(command)[1:]))
    assert f"user vip, day: $10 (each has $5); budget {number}, block" in said
    assert admits(store, number, "vip", "2")
    assert not admits(store, number, "u-1", "6")
    assert "user vip: $10 a day in place of what each has." in fine(cli("budgets", "list"))
    left = json.loads(fine(cli("budgets", "check", "--user", "vip", "--json")))["windows"]
    assert {(row["budget_id"], Decimal(row["limit_amount"])) for row in left if row["budget_id"] == number} == {
        (number, 10)
    }
    fine(cli("budgets", "set", "user", "vip", "--daily", "none", "--instead"))
    assert not admits(store, number, "vip", "0.5")
    assert [row["operation"] for row in rows(
        "select operation from admin_audit where table_name = 'budget_overrides' order by id"
    )] == ["insert", "delete"]  # fmt: skip


def test_a_raise_adds_to_every_limit_and_ends_by_itself(
    cli: Cli, store: PostgresStore, rows: Rows, spend: Callable[..., None], budget: Callable[..., int]
) -> None:
    number = budget(action="block", daily_limit="5", monthly_limit="6", timezone="Europe/Berlin")
    spend("5", user_id="vip")
    assert not admits(store, number, "vip", "3")
    said = fine(cli("budgets", "raise", "user", "vip", "+10", "--until", "tomorrow"))
    assert f"(each has $5); budget {number}, block" in said
    assert "user vip, month: $16, until" in said
    assert admits(store, number, "vip", "3")
    assert "user vip: $10 more until" in fine(cli("budgets", "list"))
    [row] = rows("select (until at time zone 'Europe/Berlin')::time::text as ends from vital_private.budget_overrides")
    assert row["ends"] == "00:00:00"
    past = "since = now() - interval '2 days', until = now() - interval '1 second'"
    assert rows(f"update vital_private.budget_overrides set {past} returning id")
    assert not admits(store, number, "vip", "3")
    fine(cli("budgets", "raise", "user", "vip", "+1", "--until", "12h"))
    fine(cli("budgets", "raise", "user", "vip", "none"))
    assert rows("select from vital_private.budget_overrides where until > now()") == []
    assert "must end later than now" in refused(cli("budgets", "raise", "user", "vip", "+1", "--until", "2020-01-01"))
    beyond = cli("budgets", "raise", "user", "vip", "+1", "--until", "9999-12-31")
    assert (beyond.returncode, "days are from 1970-01-01 to 2999-12-31" in beyond.stderr) == (2, True)
    assert "say when it ends: --until tomorrow" in cli("budgets", "raise", "user", "vip", "+1").stderr


def test_a_budget_is_previewed_before_it_is_set(spend: Callable[..., None], several: Several) -> None:
    """A limit would be set blindly, or by looking at it."""
    spend()
    spend()
    told, as_json, without, none, alerts, swapped, before, beyond, not_a_number = several(
        ["budgets", "preview", "user", "--daily", "1", "--action", "block"],
        ["budgets", "preview", "user", "--daily", "1", "--action", "block", "--shadow", "--json"],
        ["budgets", "preview", "user"],
        ["budgets", "list", "--json"],
        ["alerts", "list", "--since", "2020-01-01", "--until", "2020-02-01", "--json"],
        ["alerts", "list", "--since", "2020-02-01", "--until", "2020-01-01"],
        ["alerts", "list", "--until", "2020-01-01"],
        ["alerts", "list", "--since", "0001-01-01"],
        ["alerts", "list", "--days", "nan"],
    )
    said = fine(told)
    assert "each user: 2 calls, $1.20" in said
    assert "Calls that would have been stopped: 1" in said
    assert "cannot be known" in said
    assert json.loads(fine(as_json))["total"]["stopped"] == 1
    assert "needs a limit" in refused(without, code=2)
    assert [json.loads(fine(one)) for one in (none, alerts)] == [[], []]
    assert "--since must be earlier than --until" in refused(swapped, code=2)
    assert "--until is before" in refused(before, code=2)
    assert "days are from 1970-01-01 to 2999-12-31" in refused(beyond, code=2)
    assert "--days" in refused(not_a_number, code=2)
