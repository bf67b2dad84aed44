"""`import`, `allocate`, `meter` and `prices resource`, as they are typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.acceptance.cli.helpers import Several, fine, refused
from tests.integration.imports.litellm_wire import a_request
from tests.integration.imports.logs import ADDRESS, text_of


def test_logs_prices_and_invoices_from_the_command_line(several: Several, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(text_of(range(4)) + f"{ADDRESS} is no line\n".encode() + b'{"half')
    no_log = tmp_path / "notes.txt"
    no_log.write_text("Nothing of this is a request.\nNor is this.\n", encoding="utf-8")
    spend = tmp_path / "spend.jsonl"
    spend.write_text(json.dumps(a_request()), encoding="utf-8")
    done = several(
        ["import", "list"],
        ["import", "access-log", str(log), "--organization", "acme", "--dry-run"],
        ["import", "access-log", str(log), "--organization", "acme", "--cost", "search=/api/search*"],
        ["import", "access-log", str(log), "--organization", "acme"],
        ["import", "list"],
        ["import", "list", "--json"],
        ["import", "access-log", str(tmp_path / "none.log")],
        ["import", "access-log", str(log), "--cost", "serch=/api/*"],
        ["allocate", "2026-01", "--amount", "1200", "--by", "cost", "--dry-run"],
        ["allocate", "2026-01", "--amount", "1200", "--by", "cost"],
        ["allocate", "2026-01", "--amount", "900", "--json"],
        ["allocate", "2026-13", "--amount", "900"],
        ["prices", "resource", "set", "compute", "1.60", "--resource", "gpu-1", "--from", "2026-01-01"],
        ["prices", "resource", "list"],
        ["prices", "resource", "set", "compute", "1.70", "--resource", "gpu-1", "--from", "2026-01-01"],
        ["prices", "resource", "reprice"],
        ["meter", str(tmp_path), "--dry-run"],
        ["meter", str(tmp_path), "--postgres", "--organization", "acme"],
        ["meter", str(tmp_path), "--json", "--organization", "acme"],
        ["meter"],
        ["meter", "--database", "none"],
        ["import", "litellm", "--spend", str(spend)],
        ["import", "litellm", "--spend", str(spend), "--json"],
        ["import", "litellm"],
        ["import", "litellm", "--metrics", "http://user:geheim@127.0.0.1:1/metrics"],
        ["import", "access-log", str(no_log)],
        ["meter", str(tmp_path), "--organization", "acme"],
        ["meter", str(tmp_path), "--organization", "acmee"],
        ["meter", str(tmp_path), "--organization", "south"],
        ["allocate", "2026-01", "--amount", "1200", "--organization", "acme", "--organization", "amce"],
        ["prices", "resource", "set", "storage", "0.03", "--unit", "gb"],
        ["prices", "resource", "set", "storage", "0.03", "--unit", "gb", "--new-unit"],
        ["prices", "resource", "set", "storage", "0.04", "--unit", "gb", "--from", "2027-01-01"],
        ["prices", "resource", "set", "other", "0.04", "--unit", "seat"],
        ["prices", "resource", "reprice", "--again"],
        ["prices", "resource", "reprice", "--again", "--since", "2026-01-01", "--yes"],
    )
    *done, metered_third, mistyped, twice, amce, no_unit, new_unit, then_known, any_unit, unasked, repriced_again = done
    nothing, dry, first, second, files, as_json, no_file, wrong_rule = done[:8]
    shares, stored, again, no_month, set_price, prices, same_price, repriced = done[8:16]
    unmetered, metered, metered_again, no_folder, no_database, requests, once, neither, no_proxy, other = done[16:]
    assert "No file was imported yet" in fine(nothing)
    assert "5 lines: would record 4 events, 0 costs" in fine(dry)
    said = fine(first)
    assert "5 lines: recorded 4 events, 2 costs" in said
    assert f"access.log: line 5, at byte {len(text_of(range(4))):,}: neither json nor nginx" in said
    assert "its last line has no end yet" in said
    assert "set VITAL_HASH_KEY" in said
    assert ADDRESS not in said + fine(files) + fine(as_json)
    assert "0 lines: recorded 0 events, 0 costs" in fine(second)
    assert "for other rules: --again" in second.stdout
    assert "Is it an access log" in refused(other), "cron would take it for done"
    assert json.loads(as_json.stdout)[0]["bad_lines"] == 1
    assert "none.log cannot be read" in refused(no_file)
    assert "did you mean search?" in refused(wrong_rule, code=2)
    assert "$1,200.00 by cost" in fine(shares)
    assert "Nothing was stored." in shares.stdout
    assert "Stored: 1 organization." in fine(stored)
    assert json.loads(fine(again))["before"] == "1200.00"
    assert "it looks like 2026-11" in refused(no_month, code=2)
    assert "compute of gpu-1: $1.60" in fine(set_price)
    assert "gpu-1" in fine(prices)
    assert "choose another --from" in refused(same_price)
    assert "priced 0 costs" in fine(repriced)
    assert "Nothing was recorded." in fine(unmetered)
    assert "postgresql:" in fine(metered)
    assert "The first reading costs nothing" in metered.stdout
    assert json.loads(fine(metered_again))[0]["since"]
    gb_months = re.findall(r"folder:\S+ +[\d.]+ +\S+ \S+ +([\d.]+) +\$([\d.]+)", fine(metered_third))
    assert [max(map(len, row)) < 24 for row in gb_months] == [True], metered_third.stdout
    for told in (mistyped, amce):
        assert "did you mean acme? If it is a new one, say so: --new" in refused(told)
    assert f"folder:{tmp_path} is metered for organization acme as well" in fine(twice)
    assert "counted in gb; did you mean gb_month? Counted are: gb_month." in refused(no_unit)
    for told in (new_unit, then_known, any_unit):
        fine(told)
    assert "Bills of all organizations may change" in unasked.stdout + unasked.stderr
    assert unasked.returncode == 1
    assert "priced" in fine(repriced_again)
    assert "name a folder" in refused(no_folder, code=2)
    assert "There is no database none on this server" in refused(no_database)
    assert "1 request: recorded 1 call" in fine(requests)
    assert json.loads(fine(once))["known"] == 1
    assert "give one of" in refused(neither, code=2)
    assert "http://127.0.0.1:1/metrics cannot be reached" in refused(no_proxy)
    assert "geheim" not in no_proxy.stderr
