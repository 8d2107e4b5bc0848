"""The JSON API and the manners of the whole app: methods, types, ETags, refusals."""

import json
import threading
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.outputs.shown import ShownRun
from hf_eco2ai.records import BudgetStatus, DeviceTotals, Footprint, HostTotals, Rates, Snapshot, TreeUsage
from tests.journal import make
from tests.outputs.asked import app_of, app_over, ask
from tests.outputs.recorded import JOULES, recorded_run

RUNS = "/api/v1/runs"
TOKEN = "0123456789abcdef" * 2


def run(run_id: str, *, began: float = make.BEGAN, host: str = "node1", project: str = "llama-finetune", **more: Any) -> Snapshot:
    identity = make.identity(run_id, host, started_unix=began, project_name=project)
    return make.snapshot(more.pop("seconds", 100.0), run=identity, **more)


def ids(response: Any) -> list[str]:
    return [one["run_id"] for one in response.json()["runs"]]


# Lists


def test_runs_are_listed_newest_first_with_their_number() -> None:
    app = app_of(run("second", began=2.0), run("first", began=1.0), run("third", began=3.0))
    response = ask(app, RUNS)
    assert response.headers["content-type"] == "application/json"
    assert ids(response) == ["third", "second", "first"]
    assert response.json()["total"] == 3


def test_a_listed_run_has_the_figures_of_the_command_line_and_those_of_now() -> None:
    """2250.176 J of two seconds at 329.65 g/kWh and PUE 1.2; the last second used 1225.088 J."""
    (listed,) = ask(app_of(recorded_run()), RUNS).json()["runs"]
    assert listed == {
        "run_id": "0123456789ab",
        "project_name": "llama-finetune",
        "model_name": "meta-llama/Llama-3.1-8B",
        "experiment_name": "lora",
        "trainer": "transformers",
        "state": "running",
        "end_reason": "",
        "parent": "",
        "started_unix": 0.0,
        "updated_unix": 1_795_000_102.0,
        "seconds": 2.0,
        "energy_kwh": pytest.approx(JOULES / 3.6e6),
        "co2_kg": pytest.approx(JOULES / 3.6e6 * 1.2 * 0.32965),
        "cost": pytest.approx(JOULES / 3.6e6 * 1.2 * 0.25 + 2 * 2 / 3600 * 3.6),
        "currency": "EUR",
        "wasted_kwh": 0.0,
        "basis": "mixed",
        "steps": 10,
        "hosts": ["node1"],
        "present": {"watts": pytest.approx(1225.088), "grams_per_hour": pytest.approx(1.225088 * 1.2 * 329.65)},
        "progress_ratio": 0.25,
    }


def test_a_run_that_is_over_has_no_present_figures() -> None:
    (listed,) = ask(app_of(run("a", state="ended")), RUNS).json()["runs"]
    assert listed["present"] is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("project=bert", ["b"]),
        ("project=none", []),
        ("state=ended", ["c", "a"]),
        ("state=ended&project=llama-finetune", ["c", "a"]),
        ("limit=1", ["c"]),
        ("limit=1&offset=1", ["b"]),
        ("offset=3", []),
        ("limit=1000&offset=1000000000", []),
    ],
)
def test_a_list_is_narrowed_down_by_its_query(query: str, expected: list[str]) -> None:
    app = app_of(run("a", began=1.0, state="ended"), run("b", began=2.0, project="bert"), run("c", began=3.0, state="ended"))
    assert ids(ask(app, f"{RUNS}?{query}")) == expected


def test_the_total_is_of_all_pages_that_fit() -> None:
    app = app_of(*(run(f"r{n}", state="ended" if n < 4 else "running") for n in range(10)))
    assert ask(app, f"{RUNS}?state=ended&limit=2").json()["total"] == 4


def test_a_hundred_runs_are_listed_where_no_limit_is_said() -> None:
    assert len(ids(ask(app_of(*(run(f"r{n}") for n in range(150))), RUNS))) == 100


@pytest.mark.parametrize(
    ("query", "parameter", "expected"),
    [
        ("limit=0", "limit", "from 1 to 1000"),
        ("limit=1001", "limit", "from 1 to 1000"),
        ("limit=", "limit", "a whole number"),
        ("limit=1.5", "limit", "a whole number"),
        ("limit=%2B5", "limit", "a whole number"),
        ("limit=٣", "limit", "a whole number"),
        ("limit=99999999999999999999999999", "limit", "a whole number"),
        ("offset=-1", "offset", "from 0"),
        ("state=dead", "state", "one of running, ended, failed, lost"),
        ("limit=1&limit=1", "limit", "twice"),
        ("colour=green", "colour", "There is no parameter 'colour' here, only project, state, limit, offset."),
        ("%1b%5b2J=1", " [2J", "no parameter"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_it_should_be(query: str, parameter: str, expected: str) -> None:
    response = ask(app_of(), f"{RUNS}?{query}")
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["parameter"] == parameter
    assert expected in response.json()["detail"]


def test_one_run_takes_no_parameters() -> None:
    response = ask(app_of(run("a")), f"{RUNS}/a?verbose=1")
    assert (response.status_code, response.json()["detail"]) == (400, "There is no parameter 'verbose' here, none.")


# One run


def test_a_run_is_told_with_the_provenance_of_every_figure() -> None:
    told = ask(app_of(recorded_run()), f"{RUNS}/0123456789ab").json()
    assert told["total"]["joules"] == pytest.approx(JOULES)
    assert told["grid_factor"] == {
        "grams_per_kwh": 329.65,
        "factor_type": "lifecycle",
        "source": "Ember via Our World in Data, 2026-06 edition",
        "country": "DE",
        "region": "",
        "year": 2025,
        "licence": "CC-BY-4.0",
        "assumed": False,
        "age_seconds": None,
    }
    assert told["tariff"] == {"per_kwh": 0.25, "per_gpu_hour": 3.6, "currency": "EUR"}
    assert (told["pue"], told["observed_ratio"], told["errors"]) == (1.2, 1.0, {})
    (host,) = told["hosts"]
    assert (host["host"], host["reporting"], host["phases"]["setup"]["seconds"]) == ("node1", True, 0.5)
    first, second, *_ = host["devices"]
    assert (first["uuid"], first["basis"], first["source"]) == ("GPU-aaaa", "measured", "NVML energy counter")
    assert (first["joules"], first["methods"], first["watts"]) == (1200.0, ["counter"], 600.0)
    assert (second["joules"], second["methods"]) == (800.0, ["trapezoid"])
    assert first["telemetry"]["utilization_percent"] == 80.0
    (budget,) = told["budgets"]
    assert (budget["kind"], budget["limit"], budget["used_ratio"]) == ("carbon", 5.0, pytest.approx(told["co2_kg"] / 5.0))
    assert (told["progress"]["loss"], told["progress"]["max_steps"]) == (2.5, 40)
    assert told["forecast"]["joules"] > JOULES


def test_figures_that_json_has_no_number_for_are_strings() -> None:
    snapshot = run("a")
    forged = replace(
        snapshot,
        attempt=replace(snapshot.attempt, total=Footprint(float("nan"), float("inf"))),
        progress=snapshot.progress._replace(loss=float("-inf")),
    )
    told = ask(app_of(forged), f"{RUNS}/a")
    assert json.loads(told.text, parse_constant=pytest.fail)["energy_kwh"] == "NaN"
    assert (told.json()["co2_kg"], told.json()["progress"]["loss"]) == ("Infinity", "-Infinity")


def test_devices_that_are_no_more_in_use_keep_their_joules() -> None:
    now = run("a", gpus=1)
    before = HostTotals("node1", Footprint(500.0, 5.0), devices=(DeviceTotals("GPU-old", "gpu", "measured", 500.0, 5.0),))
    (host,) = ask(app_of(replace(now, inherited=(before,))), f"{RUNS}/a").json()["hosts"]
    old = next(device for device in host["devices"] if device["uuid"] == "GPU-old")
    assert (old["joules"], old["source"], old["watts"]) == (500.0, None, None)


# A run of several hosts


def two_hosts() -> tuple[Snapshot, Snapshot]:
    """node1 leads. What it heard of node2 is less than what node2 says itself; node9 has left, and is known to node1 only."""
    follower = run("a", host="node2", leads=False, seconds=200.0)
    heard = HostTotals("node2", Footprint(1.0, 1.0))
    left = HostTotals("node9", Footprint(1000.0, 100.0), wasted=Footprint(10.0, 1.0))
    leader = replace(run("a", host="node1", seconds=100.0), elsewhere=(heard,), inherited=(left,))
    return leader, follower


@pytest.mark.parametrize("leading_first", [True, False])
def test_a_run_on_several_hosts_is_one_run_in_which_no_joule_is_counted_twice(leading_first: bool) -> None:
    leader, follower = two_hosts()
    app = app_of(*((leader, follower) if leading_first else (follower, leader)))
    (listed,) = ask(app, RUNS).json()["runs"]
    joules = leader.attempt.total.joules + follower.attempt.total.joules + 1000.0
    assert listed["energy_kwh"] == pytest.approx(joules / 3.6e6)
    assert listed["wasted_kwh"] == pytest.approx(10.0 / 3.6e6)
    assert listed["hosts"] == ["node1", "node2", "node9"]
    assert listed["present"]["watts"] == pytest.approx(2 * (250.3 + 61.7))
    hosts = {host["host"]: host for host in ask(app, f"{RUNS}/a").json()["hosts"]}
    assert {name: host["reporting"] for name, host in hosts.items()} == {"node1": True, "node2": True, "node9": False}
    assert hosts["node2"]["total"]["joules"] == follower.attempt.total.joules
    assert hosts["node9"]["devices"] == []


def test_without_its_leading_process_a_run_is_what_its_hosts_say() -> None:
    _, follower = two_hosts()
    (listed,) = ask(app_of(follower), RUNS).json()["runs"]
    assert (listed["energy_kwh"], listed["hosts"]) == (follower.attempt.total.kwh, ["node2"])


def test_a_single_snapshots_total_is_its_own_to_the_last_digit() -> None:
    leader, _ = two_hosts()
    assert ShownRun((leader,)).total == leader.total


# Ids


@pytest.mark.parametrize(
    "run_id",
    ["a/b", "a b", "%2F", "?x=1#y", "<script>", '"', "'", "\n", "a\nb", "é", "\udcff", "runs", "openapi.json", "a/", "+"],
)
def test_whatever_its_id_a_run_can_be_asked_for(run_id: str) -> None:
    app = app_of(run(run_id), run("other"))
    known = run_id.encode("utf-8", "backslashreplace").decode()
    assert known in ids(ask(app, RUNS))
    response = ask(app, f"{RUNS}/{quote(known, safe='')}")
    assert (response.status_code, response.json()["run_id"]) == (200, known)


def test_an_unknown_id_is_a_problem_that_says_where_to_look() -> None:
    response = ask(app_of(run("a")), f"{RUNS}/b")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "No run 'b' is served here; /api/v1/runs lists those that are.",
    }


def test_an_id_is_repeated_short_and_printable() -> None:
    detail = ask(app_of(), f"{RUNS}/%E2%80%AE{'x' * 10_000}").json()["detail"]
    assert "\u202e" not in detail
    assert len(detail) < 300


# Deleting


class Served:
    """Runs that can be forgotten."""

    def __init__(self, *snapshots: Snapshot, token: str = TOKEN) -> None:
        self.runs = list(snapshots)
        self.app = app_over(lambda: self.runs, forget=self.forget, write_token=lambda: token)

    def forget(self, run_id: str) -> bool:
        before = len(self.runs)
        self.runs = [one for one in self.runs if one.identity.run_id != run_id]
        return len(self.runs) < before


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer  {TOKEN}"},
        {"X_Hf_Eco2ai_Token": TOKEN},
        {"Authorization": "Basic cHJvbTpzZWNyZXQ=", "X_Hf_Eco2ai_Token": TOKEN},
    ],
)
def test_a_run_that_is_over_is_forgotten_by_whoever_has_the_token(headers: dict[str, str]) -> None:
    served = Served(run("a", state="ended"), run("b"))
    response = ask(served.app, f"{RUNS}/a", "DELETE", **headers)
    assert (response.status_code, response.content) == (204, b"")
    assert ids(ask(served.app, RUNS)) == ["b"]
    assert ask(served.app, f"{RUNS}/a", "DELETE", **headers).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
        {"X_Hf_Eco2ai_Token": ""},
        {"X_Hf_Eco2ai_Token": "ÿ"},
    ],
)
def test_without_the_token_nothing_is_forgotten_and_the_token_is_not_told(headers: dict[str, str]) -> None:
    served = Served(run("a", state="ended"))
    response = ask(served.app, f"{RUNS}/a", "DELETE", **headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="hf_eco2ai"'
    assert TOKEN not in response.text + str(response.headers)
    assert ids(ask(served.app, RUNS)) == ["a"]


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_run_that_goes_on_anywhere_is_not_forgotten(hosts: int) -> None:
    parts = [run("a", host="node1", state="ended"), run("a", host="node2", leads=False)][-hosts:]
    served = Served(*parts)
    response = ask(served.app, f"{RUNS}/a", "DELETE", Authorization=f"Bearer {TOKEN}")
    assert (response.status_code, len(served.runs)) == (409, hosts)


def test_who_has_not_got_the_token_is_told_of_with_path_and_client_alone() -> None:
    refused: list[tuple[str, str]] = []
    ended = run("a", state="ended")
    for token in (TOKEN, ""):
        app = app_of(ended, forget=lambda _: True, write_token=lambda: token, refused=lambda *who: refused.append(who))  # noqa: B023
        ask(app, "/api/v1/runs/a", "DELETE", Authorization="Bearer a-wrong-one")
    assert [path for path, _ in refused] == ["/api/v1/runs/a"] * 2
    assert "a-wrong-one" not in str(refused)


def test_without_a_token_of_its_own_a_server_forgets_nothing_and_says_how_it_would() -> None:
    ended = run("a", state="ended")
    nothing = Served(ended, token="").app
    for app in (app_of(ended), app_of(ended, write_token=lambda: TOKEN), app_of(ended, forget=lambda _: True), nothing):
        response = ask(app, f"{RUNS}/a", "DELETE", Authorization="Bearer ")
        assert response.status_code == 403
        assert "--token-file" in response.json()["detail"]


def test_a_token_file_that_cannot_be_read_is_no_free_pass_and_its_path_is_not_told() -> None:
    def unreadable() -> str:
        raise ConfigError("The token file /etc/secret cannot be read")

    app = app_of(run("a", state="ended"), forget=lambda _: True, write_token=unreadable)
    response = ask(app, f"{RUNS}/a", "DELETE", Authorization="Bearer x")
    assert response.status_code == 503
    assert "/etc" not in response.text


# Manners

PATHS = {
    "/metrics": "text/plain; version=0.0.4; charset=utf-8",
    "/healthz": "text/plain; charset=utf-8",
    "/readyz": "text/plain; charset=utf-8",
    "/": "text/html; charset=utf-8",
    RUNS: "application/json",
    f"{RUNS}/a": "application/json",
    "/api/v1/openapi.json": "application/json",
}


@pytest.mark.parametrize("path", PATHS)
def test_a_head_is_the_headers_of_the_get_without_a_body(path: str) -> None:
    app = app_of(run("a"))
    get, head = ask(app, path), ask(app, path, "HEAD")
    assert (get.status_code, get.headers["content-type"]) == (200, PATHS[path])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == get.headers
    assert int(get.headers["content-length"]) == len(get.content)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "OPTIONS", "TRACE", "DELETE"])
def test_a_method_that_a_path_does_not_know_is_refused_with_those_that_it_does(path: str, method: str) -> None:
    if (path, method) == (f"{RUNS}/a", "DELETE"):
        return
    response = ask(app_of(run("a")), path, method)
    assert response.status_code == 405
    assert response.headers["allow"] == ("DELETE, GET, HEAD" if path == f"{RUNS}/a" else "GET, HEAD")
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/nowhere", "text/plain; charset=utf-8"),
        ("/metrics/", "text/plain; charset=utf-8"),
        ("/healthz/", "text/plain; charset=utf-8"),
        ("//", "text/plain; charset=utf-8"),
        ("/api/v1/runs/", "application/problem+json"),
        ("/api/v1/openapi.json/", "application/problem+json"),
        ("/api/v2/runs", "application/problem+json"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_is_not_there_is_a_404_and_never_a_redirect(path: str, content_type: str, method: str) -> None:
    response = ask(app_of(run("a")), f"http://127.0.0.1{path}", method)
    assert (response.status_code, response.headers["content-type"]) == (404, content_type)


@pytest.mark.parametrize("path", ["/metrics", "/", RUNS, f"{RUNS}/a", "/api/v1/openapi.json"])
def test_who_accepts_nothing_that_there_is_gets_a_406(path: str) -> None:
    response = ask(app_of(run("a")), path, Accept="image/png")
    assert response.status_code == 406
    expected = "application/problem+json" if path.startswith("/api/") else "text/plain; charset=utf-8"
    assert response.headers["content-type"] == expected


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_answered_whatever_they_accept(path: str) -> None:
    assert ask(app_of(run("a")), path, Accept="image/png").status_code == 200


@pytest.mark.parametrize("path", ["/", "/?run=a", RUNS, f"{RUNS}/a", "/api/v1/openapi.json"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_has_it_already_is_told_so(path: str, method: str) -> None:
    app = app_of(run("a"), run("b"), compression=True)
    first = ask(app, path, Accept_Encoding="gzip")
    assert (first.headers["cache-control"], first.headers["vary"]) == ("no-cache", "accept, accept-encoding")
    etag = first.headers["etag"]
    for known in (etag, etag.removeprefix("W/"), f'"x", {etag}', "*"):
        again = ask(app, path, method, If_None_Match=known)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert "content-type" not in again.headers
    assert ask(app, path, method, If_None_Match='"x"').status_code == 200


def test_another_answer_has_another_etag() -> None:
    one, two = (ask(app_of(run("a", seconds=seconds)), f"{RUNS}/a").headers["etag"] for seconds in (100.0, 105.0))
    assert one != two


@pytest.mark.parametrize("path", ["/", RUNS, "/api/v1/openapi.json"])
def test_a_long_answer_is_gzipped_for_those_who_accept_it_if_the_setting_allows(path: str) -> None:
    runs = [run(f"r{n}") for n in range(20)]
    plain = ask(app_of(*runs, compression=True), path)
    assert "content-encoding" not in plain.headers
    assert len(plain.content) > 1024
    zipped = ask(app_of(*runs, compression=True), path, Accept_Encoding="gzip")
    assert zipped.headers["content-encoding"] == "gzip"
    assert int(zipped.headers["content-length"]) < len(plain.content) / 3
    assert zipped.content == plain.content  # httpx has unzipped it.
    assert "content-encoding" not in ask(app_of(*runs), path, Accept_Encoding="gzip").headers


def test_a_short_answer_is_not_gzipped() -> None:
    assert "content-encoding" not in ask(app_of(compression=True), RUNS, Accept_Encoding="gzip").headers


def test_readiness_is_what_it_is_set_to_be_and_otherwise_any_run() -> None:
    assert ask(app_of(), "/readyz").status_code == 503
    assert ask(app_of(run("a")), "/readyz").status_code == 200
    assert ask(app_of(ready=lambda: True), "/readyz").status_code == 200
    assert ask(app_of(run("a"), ready=lambda: False), "/readyz").status_code == 503
    assert ask(app_of(), "/healthz").status_code == 200


def test_answers_can_be_made_in_a_thread_so_that_the_event_loop_goes_on() -> None:
    made_in: list[threading.Thread] = []

    class Watched(tuple[Snapshot, ...]):
        def __iter__(self) -> Any:
            made_in.append(threading.current_thread())
            return super().__iter__()

    app = app_over(lambda: Watched([run("a")]), in_thread=True)
    assert ask(app, RUNS).json()["total"] == 1
    assert ask(app, f"{RUNS}/b").status_code == 404
    assert "llama-finetune" in ask(app, "/").text
    assert threading.main_thread() not in made_in


# Forged journals

_odd = make.any_figure
_footprints = st.builds(Footprint, _odd, _odd, st.none() | _odd, st.none() | _odd)


@st.composite
def any_snapshot(draw: st.DrawFn) -> Snapshot:
    """Figures and names that nobody has measured or given."""
    _, snapshot, _ = draw(make.any_run())
    attempt = replace(snapshot.attempt, total=draw(_footprints), wasted=draw(_footprints), phase_seconds=(("train", draw(_odd)),))
    return replace(
        snapshot,
        attempt=attempt,
        identity=replace(snapshot.identity, run_id=draw(make.hostile_text), started_unix=draw(_odd)),
        updated_unix=draw(_odd),
        pue=draw(_odd),
        observed_ratio=draw(_odd),
        rates=Rates(draw(_odd), draw(_odd), draw(_odd)),
        budgets=(BudgetStatus("carbon", draw(_odd), draw(_odd)), BudgetStatus("cost", 0.0, draw(_odd))),
        progress=snapshot.progress._replace(steps=draw(st.sampled_from([0, 10**400, -5])), samples=10**4000),
        tree=TreeUsage(draw(_odd), 1, 1, 10**400, 10**400),
    )


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(any_snapshot(), min_size=1, max_size=3))
def test_no_snapshot_breaks_the_page_or_the_api(snapshots: list[Snapshot]) -> None:
    app = app_of(*snapshots)
    assert ask(app, "/").status_code == 200
    for run_id in ids(ask(app, RUNS)):
        link = quote(run_id, safe="")
        assert ask(app, f"/?run={link}").status_code == 200
        if run_id not in {"", ".", ".."}:  # Clients take these for steps in the path.
            told = ask(app, f"{RUNS}/{link}")
            assert json.loads(told.text, parse_constant=pytest.fail)["run_id"] == run_id
