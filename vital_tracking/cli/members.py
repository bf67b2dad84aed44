"""`vital-tracking members`: who belongs to an organization, and who may change that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import typer

from vital_tracking.cli.render.console import as_csv, as_json, console, say, table
from vital_tracking.cli.render.options import a_name, named, words
from vital_tracking.cli.render.organizations import New, check_organizations
from vital_tracking.cli.render.session import Csv, Json, Yes, one_organization, opened
from vital_tracking.errors import VitalError
from vital_tracking.queries.members import (
    ROLES,
    MemberChange,
    MemberRefused,
    add_member,
    change_member,
    members,
    name_member,
    remove_member,
)
from vital_tracking.queries.names import name_organization

app = typer.Typer(
    help="Members of organizations: who sees what of it, and who may change that.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

User = Annotated[str, typer.Argument(help="The user's id, as in his token's `sub`.")]
Organization = Annotated[
    str | None, typer.Option(help="The organization's id; by default the one of VITAL_ORGANIZATION_ID.")
]
Force = Annotated[bool, typer.Option("--force", help="Also where that leaves the organization without an admin.")]

Name = Annotated[str, typer.Option(help="The user's name, shown beside the id.")]
Email = Annotated[str, typer.Option(help="The user's e-mail address, which admins alone are shown.")]

_COLUMNS: Final = ("organization_id", "user_id", "name", "email", "role", "created_at")
_ROLE_HELP: Final = (
    "member (sees what is his own), auditor (sees all of the organization) or admin (changes members and budgets, too)."
)


@app.command("list")
def list_members(
    organization: Annotated[str | None, typer.Option(callback=a_name, help="Only this organization's.")] = None,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """List members, of all organizations or of one.

    \b
    Examples:
      vital-tracking members list
      vital-tracking members list --organization acme --csv
    """
    with opened() as store:
        rows = members(store, organization=organization, limit=10_000)
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, _COLUMNS)
    elif not rows:
        whose = f" of organization {organization}" if organization is not None else ""
        say(f"No members{whose}. To add one: vital-tracking members add USER --organization {organization or 'acme'}")
    else:
        headings = tuple((name, False) for name in ("organization", "user", "name", "e-mail", "role", "since"))
        cells = [
            (
                row["organization_id"],
                row["user_id"],
                row["name"] or "-",
                row["email"] or "-",
                row["role"],
                f"{row['created_at']:%Y-%m-%d}",
            )
            for row in rows
        ]
        console.print(table("", headings, cells))


@app.command("add")
def add(
    user: User,
    organization: Organization = None,
    role: Annotated[str, typer.Option(help=_ROLE_HELP, **words(ROLES, "role"))] = "member",
    name: Name = "",
    email: Email = "",
    new: New = False,
    json_: Json = False,
) -> None:
    """Make a user a member of an organization, and say what he is called where Supabase Auth does not know it.

    \b
    Examples:
      vital-tracking members add 8f14e45f-ceea-4672-9d5a-1f0d8a0f5c11 --organization acme
      vital-tracking members add u-2 --organization acme --role admin --name "Maria Keller" --email maria@acme.example
    """
    whose, who = one_organization(organization), named(user, "USER")
    with opened() as store:
        check_organizations(store, [organization], new=new)
        _tell(lambda: add_member(store, whose, who, role, name=name, email=email), json_=json_)


@app.command("name")
def name_one(
    user: User,
    organization: Organization = None,
    name: Annotated[str | None, typer.Option(help="The user's name; an empty one takes it away.")] = None,
    email: Annotated[str | None, typer.Option(help="The e-mail address, which admins alone are shown.")] = None,
    json_: Json = False,
) -> None:
    """Write down what a member is called; where Supabase Auth knows the user, that counts.

    \b
    Examples:
      vital-tracking members name u-1 --organization acme --name "Maria Keller" --email maria@acme.example
    """
    if name is None and email is None:
        raise typer.BadParameter("give --name or --email")
    whose = one_organization(organization)
    with opened() as store:
        _tell(lambda: name_member(store, whose, user, name=name, email=email), json_=json_, naming=True)


@app.command("name-organization")
def name_whole(
    name: Annotated[str, typer.Argument(help="What it is called; an empty one takes it away.")],
    organization: Organization = None,
    json_: Json = False,
) -> None:
    """Write down what an organization is called; its id stays what budgets and filters name.

    \b
    Examples:
      vital-tracking members name-organization "Acme Clinics" --organization acme
    """
    whose = one_organization(organization)
    with opened() as store:
        done = name_organization(store, whose, name)
    if json_:
        as_json(done)
    else:
        say(f"Organization {whose} is called {done['name'] or whose} from now on")


@app.command("promote")
def promote(
    user: User,
    organization: Organization = None,
    to: Annotated[str, typer.Option("--to", **words(("admin", "auditor"), "role"))] = "admin",
    json_: Json = False,
) -> None:
    """Make a member an admin, or an auditor.

    \b
    Examples:
      vital-tracking members promote u-1 --organization acme
      vital-tracking members promote u-1 --organization acme --to auditor
    """
    with opened() as store:
        _tell(lambda: change_member(store, one_organization(organization), user, to), json_=json_)


@app.command("demote")
def demote(
    user: User,
    organization: Organization = None,
    to: Annotated[str, typer.Option("--to", **words(("member", "auditor"), "role"))] = "member",
    force: Force = False,
    json_: Json = False,
) -> None:
    """Take the role of an admin or auditor from a member.

    \b
    Examples:
      vital-tracking members demote u-1 --organization acme
    """
    with opened() as store:
        _tell(lambda: change_member(store, one_organization(organization), user, to, force=force), json_=json_)


@app.command("remove")
def remove(
    user: User,
    organization: Organization = None,
    force: Force = False,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Remove a member from an organization. The user's calls stay; to forget them: vital-tracking forget-user

    \b
    Examples:
      vital-tracking members remove u-1 --organization acme
    """
    whose = one_organization(organization)
    if not yes:
        typer.confirm(f"Remove {user} from organization {whose}?", abort=True)
    with opened() as store:
        _tell(lambda: remove_member(store, whose, user, force=force), json_=json_)


def _tell(change: Callable[[], MemberChange], *, json_: bool, naming: bool = False) -> None:
    """Make a change and say what it came to; a refusal with the command that helps."""
    try:
        done = change()
    except MemberRefused as error:
        raise VitalError(f"{error}{_HELP.get(error.reason, '')}") from None
    if json_:
        as_json(done)
        return
    who, where = done["user_id"], f"organization {done['organization_id']}"
    if naming:
        say(f"Written down of {who} in {where}")
    elif done["after"] is None:
        say(f"{who} is no longer in {where} (was {done['before']})")
    elif done["before"] == done["after"]:
        say(f"{who} is {_a(done['after'])} of {where} already")
    else:
        was = f" (was {done['before']})" if done["before"] else ""
        say(f"{who} is now {_a(done['after'])} of {where}{was}")
    say("Noted in the audit: vital-tracking export audit audit.csv")


def _a(role: str) -> str:
    return f"{'a' if role == 'member' else 'an'} {role}"


_HELP: Final = {
    "is_a_member": " On the command line: vital-tracking members promote or demote",
    "is_no_member": " On the command line: vital-tracking members add",
    "is_the_last_admin": " On the command line: --force",
}
