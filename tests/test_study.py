"""The preference study: what participants see, that every judgement is kept once, and what comes of them."""

import csv
import os
import re
import shutil
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest
from fastapi.testclient import TestClient
from scipy.stats import binomtest, t

from conftest import run_here, served, write_picture
from ugatit.apps.study import (
    PAPER,
    Answers,
    Study,
    StudyConfig,
    application,
    find_questions,
    pictures_of,
    shares,
)  # fmt: skip
from ugatit.data.finding import find_files
from ugatit.evaluation.intervals import among_people, student, wilson
from ugatit.io.errors import UserError

METHODS = ("alpha", "beta", "gamma")


@pytest.fixture
def pictures(tmp_path):
    """Two domains, three methods, four sources; one of a method's pictures is missing."""
    for d, domain in enumerate(("a2b", "b2a")):
        for m, method in enumerate(("source", *METHODS)):
            for i in range(4):
                write_picture(tmp_path / "pictures" / domain / method / f"{i}.png", 100 * d + 10 * m + i, 32)
    (tmp_path / "pictures" / "b2a" / "beta" / "3.png").unlink()
    return tmp_path / "pictures"


@pytest.fixture
def client(pictures, tmp_path):
    return TestClient(application(StudyConfig([pictures], db=tmp_path / "study.sqlite")))


def judgements(db) -> list[tuple]:
    with sqlite3.connect(db) as connection:
        return connection.execute("SELECT participant, question, method FROM judgement").fetchall()


def method_at(client, pictures, address: str) -> str:
    """Which method's picture is at an address of the page."""
    content = client.get(address).content
    return next(file.parent.name for file in pictures.rglob("*.png") if file.read_bytes() == content)


def test_a_participant_judges_each_source_once_in_its_own_order(client, pictures, tmp_path):
    first, second = (client.post("/api/participants").json() for _ in range(2))
    assert first["code"] != second["code"] and first["total"] == 7  # the eighth lacks a method
    places, seen = Counter(), []
    state = first
    while "question" in state:
        assert method_at(client, pictures, state["source"]) == "source"
        shown = [method_at(client, pictures, address) for address in state["candidates"]]
        assert sorted(shown) == list(METHODS)
        assert not any(method in address for method in METHODS for address in state["candidates"])
        assert client.get(f"/api/participants/{state['code']}").json() == state, "a reload shows the same"
        places.update([shown.index("beta")])
        seen.append((state["question"], tuple(shown)))
        answer = {"question": state["question"], "choice": shown.index("beta")}
        state = client.post(f"/api/participants/{state['code']}/answers", json=answer).json()
    assert state["done"] == 7 and len(places) > 1
    assert {method for _, _, method in judgements(tmp_path / "study.sqlite")} == {"beta"}
    other = client.get(f"/api/participants/{second['code']}").json()
    assert other["done"] == 0 and len(judgements(tmp_path / "study.sqlite")) == 7
    theirs, state = [], other
    while "question" in state:
        shown = [method_at(client, pictures, address) for address in state["candidates"]]
        theirs.append((state["question"], tuple(shown)))
        answer = {"question": state["question"], "choice": 0}
        state = client.post(f"/api/participants/{state['code']}/answers", json=answer).json()
    assert sorted(n for n, _ in theirs) == sorted(n for n, _ in seen) == list(range(1, 8))
    assert [n for n, _ in theirs] != [n for n, _ in seen], "questions come in another order"
    assert dict(theirs) != dict(seen), "and so do the methods"


def test_orders_and_choices_of_questions_are_spread(client, pictures, tmp_path):
    firsts, orders = Counter(), Counter()
    for _ in range(60):
        state = client.post("/api/participants").json()
        firsts[state["question"]] += 1
    found = find_questions(StudyConfig([pictures]))
    study = Study(found, Answers(tmp_path / "study.sqlite"), 2, {}, {})
    for number in range(60):
        assert len(set(study.order(f"CODE{number}"))) == 2
        orders[tuple(study.methods(f"CODE{number}", 1))] += 1
    assert len(firsts) == 7 and max(firsts.values()) < 30
    assert len(orders) == 6 and max(orders.values()) < 30


def test_double_clicks_and_many_participants_at_once(client, tmp_path):
    def take_part(_):
        state = client.post("/api/participants").json()
        while "question" in state:
            address = f"/api/participants/{state['code']}/answers"
            state = client.post(address, json={"question": state["question"], "choice": 0}).json()
        return state["done"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(take_part, range(8))) == [7] * 8
    assert len(judgements(tmp_path / "study.sqlite")) == 56
    state = client.post("/api/participants").json()
    address = f"/api/participants/{state['code']}/answers"
    with ThreadPoolExecutor(8) as pool:
        answers = [{"question": state["question"], "choice": i % 3} for i in range(8)]
        found = list(pool.map(lambda answer: client.post(address, json=answer).json(), answers))
    assert {one["done"] for one in found} == {1}, "the first of them counts, the others change nothing"


def test_the_first_answer_counts(client, pictures, tmp_path):
    state = client.post("/api/participants").json()
    for choice in (2, 0, 1):
        answer = {"question": state["question"], "choice": choice}
        assert client.post(f"/api/participants/{state['code']}/answers", json=answer).status_code == 200
    first = method_at(client, pictures, state["candidates"][2])
    assert judgements(tmp_path / "study.sqlite") == [(state["code"], state["question"], first)]


def test_what_is_no_answer_is_refused(client, pictures, tmp_path):
    code = client.post("/api/participants").json()["code"]
    assert client.get("/api/participants/NOBODY").status_code == 404
    for answer, status in (
        ({"question": 99, "choice": 0}, 422),
        ({"question": 1, "choice": 3}, 422),
        ({"question": 1, "choice": -1}, 422),
        ({"question": 1}, 422),
    ):
        assert client.post(f"/api/participants/{code}/answers", json=answer).status_code == status
    for place in ("0/0", "99/0", "1/9", "1/..%2f..", "1/-1"):
        assert client.get(f"/api/pictures/{code}/{place}").status_code == 404
    assert not judgements(tmp_path / "study.sqlite")
    few = TestClient(application(StudyConfig([pictures], db=tmp_path / "few.sqlite", questions=2)))
    state = few.post("/api/participants").json()
    assert state["total"] == 2
    address = f"/api/participants/{state['code']}/answers"
    taken = []
    for number in range(1, 8):  # only two of them are this participant's
        found = few.post(address, json={"question": number, "choice": 0})
        assert found.status_code in (200, 422)
        taken += [number] * (found.status_code == 200)
        picture = few.get(f"/api/pictures/{state['code']}/{number}/source")
        assert picture.status_code == (200 if number in taken else 404)
    assert len(taken) == 2 and {row[1] for row in judgements(tmp_path / "few.sqlite")} == set(taken)


def test_the_report_counts_and_its_intervals_are_scipy_s(client, tmp_path):
    for method in ("alpha", "alpha", "gamma"):
        state = client.post("/api/participants").json()
        with sqlite3.connect(tmp_path / "study.sqlite") as connection:
            connection.execute(
                "INSERT INTO judgement (participant, question, method) SELECT ?, id, ? FROM question",
                (state["code"], method),
            )
    rows = {(row.domain, row.method): row for row in shares(Answers(tmp_path / "study.sqlite"))}
    assert [(d, rows[d, "alpha"].chosen, rows[d, "alpha"].judgements) for d in ("a2b", "b2a", "all")] == [
        ("a2b", 8, 12),
        ("b2a", 6, 9),
        ("all", 14, 21),
    ]
    assert rows["all", "beta"].percent == 0 and rows["all", "gamma"].percent == pytest.approx(100 / 3)
    for chosen, of in ((0, 7), (3, 7), (7, 7), (14, 21), (0, 1)):
        interval = binomtest(chosen, of).proportion_ci(method="wilson")
        assert wilson(chosen / of, of) == pytest.approx((interval.low, interval.high), abs=1e-12)
    for degrees in (1, 2, 3, 4, 7, 14, 39, 134):
        assert student(degrees) == pytest.approx(t.ppf(0.975, degrees), rel=2e-3)
    alpha = rows["all", "alpha"]
    assert alpha.participants == 3 and alpha.low < 15 and alpha.high > 95, "three people, and not 21"
    done = run_here("study", "report", tmp_path / "study.sqlite", "--csv", tmp_path / "table.csv")
    assert done.returncode == 0 and "66.7" in done.stderr and "73.15" in done.stderr
    for column in zip(*PAPER.values(), strict=True):
        assert sum(column) == pytest.approx(100, abs=0.06), "the paper's are all of a data set's choices"
    assert f"{alpha.low:.1f} to {alpha.high:.1f}" in done.stderr
    with open(tmp_path / "table.csv") as file:
        first = next(csv.DictReader(file))
    assert (first["domain"], first["method"], first["chosen"], first["judgements"]) == ("a2b", "alpha", "8", "12")


def test_no_share_over_all_is_told_where_methods_differ():
    counts = {("a2b", "cartoon"): 3, ("a2b", "ours"): 0, ("b2a", "base"): 0, ("b2a", "ours"): 3}
    counts = {key: {"someone": (chosen, 3)} for key, chosen in counts.items()}
    assert {row.domain for row in shares(Mock(counts=lambda: dict(counts)))} == {"a2b", "b2a"}


def test_intervals_are_of_people_and_not_of_their_judgements():
    """Of people with tastes of their own, intervals hold the common share about as often as they say."""
    rng, held, naive = np.random.default_rng(0), 0, 0
    for _ in range(500):
        of = rng.integers(5, 21, 15)
        chosen = rng.binomial(of, rng.beta(0.3 * 2, 0.7 * 2, 15))
        low, high = among_people(list(zip(chosen.tolist(), of.tolist(), strict=True)))
        held += low <= 0.3 <= high
        low, high = wilson(chosen.sum() / of.sum(), of.sum())
        naive += low <= 0.3 <= high
    assert 0.92 < held / 500 < 0.98 and naive / 500 < 0.7
    assert among_people([(20, 20)]) == among_people([]) == (0, 1), "one person tells nothing of others"
    low, high = among_people([(5, 5)] * 20)
    assert 0.8 < low < 0.9 and high == 1, "as many as there are people, where all judge alike"


def test_who_begins_and_leaves_takes_nobody_s_place(pictures, tmp_path):
    client = TestClient(application(StudyConfig([pictures], db=tmp_path / "x.sqlite", participants=2)))
    codes = [client.post("/api/participants").json()["code"] for _ in range(2)]
    assert client.post("/api/participants").status_code == 409
    question = client.get(f"/api/participants/{codes[0]}").json()["question"]
    client.post(f"/api/participants/{codes[0]}/answers", json={"question": question, "choice": 0})
    with sqlite3.connect(tmp_path / "x.sqlite") as connection:
        connection.execute("UPDATE participant SET began = datetime('now', '-61 minutes')")
    assert client.post("/api/participants").status_code == 200, "the second one has left"
    assert client.post("/api/participants").status_code == 409, "the first one has not"


def test_a_picture_that_changes_while_the_study_runs_is_shown_to_nobody(pictures, tmp_path, caplog):
    client = TestClient(application(StudyConfig([pictures], db=tmp_path / "x.sqlite")))
    state = client.post("/api/participants").json()
    for file in find_files(pictures / "a2b" / "source") + find_files(pictures / "b2a" / "source"):
        write_picture(file, 99)
    found = client.get("/" + state["source"])
    assert found.status_code == 503 and "try again" in found.json()["detail"]
    assert "has changed since the study was begun: put it back" in caplog.text
    assert all(client.get("/" + path).status_code == 200 for path in state["candidates"])


def test_a_way_that_one_method_goes_is_left_out(pictures, capsys):
    for method in ("beta", "gamma"):
        shutil.rmtree(pictures / "b2a" / method)
    assert {question.domain for question in find_questions(StudyConfig([pictures]))} == {"a2b"}
    assert "b2a, which has the translations of 1 method" in " ".join(capsys.readouterr().err.split())
    for method in ("beta", "gamma"):
        shutil.rmtree(pictures / "a2b" / method)
    with pytest.raises(UserError, match="give at least two"):
        find_questions(StudyConfig([pictures]))


def test_folders_that_are_no_study_are_explained(pictures, tmp_path, capsys):
    assert len(find_questions(StudyConfig([pictures]))) == 7
    assert "left out: 1 picture of" in capsys.readouterr().err
    one = pictures / "a2b"
    flat = find_questions(StudyConfig([one / "alpha", one / "beta"], source=one / "source"))
    assert [list(q.candidates) for q in flat] == [["alpha", "beta"]] * 4
    for config, reason in (
        (StudyConfig([tmp_path / "none"]), "does not exist"),
        (StudyConfig([one / "alpha"]), "has no folder source"),
        (StudyConfig([one / "alpha", one / "beta"]), "need --source"),
        (StudyConfig([one / "alpha"], source=one / "source"), "at least two"),
    ):
        with pytest.raises(UserError, match=reason):
            find_questions(config)
    application(StudyConfig([pictures], db=tmp_path / "a.sqlite"))
    with pytest.raises(UserError, match="belongs to a study of other pictures"):
        application(StudyConfig([one], db=tmp_path / "a.sqlite"))
    (tmp_path / "text.sqlite").write_text("this is not a database, and long enough to see that" * 20)
    for db, reason in (("text.sqlite", "cannot be used"), ("none.sqlite", "does not exist")):
        done = run_here("study", "report", tmp_path / db)
        assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr


def told(pictures, tmp_path, **options):
    config = StudyConfig([pictures], db=tmp_path / "told.sqlite", **options)
    return TestClient(application(config))


def test_a_picture_whose_name_is_no_text_is_left_out(pictures, capsys):
    odd = pictures / "a2b" / "source" / os.fsdecode(b"na\xefve.png")
    shutil.copy(pictures / "a2b" / "source" / "0.png", odd)
    assert "0" in pictures_of(odd.parent) and len(pictures_of(odd.parent)) == 4
    assert "left out: 1 file with a name that is no text" in capsys.readouterr().err


def test_a_study_goes_on_where_its_pictures_went_and_with_no_others(pictures, tmp_path):
    def begin(folder):
        return application(StudyConfig([folder], db=tmp_path / "study.sqlite"))

    begin(pictures)
    moved = pictures.rename(tmp_path / "moved")
    client = TestClient(begin(moved))
    state = client.post("/api/participants").json()
    assert client.get("/" + state["source"]).status_code == 200, "its pictures are found"
    write_picture(moved / "a2b" / "alpha" / "0.png", 999, 32)
    with pytest.raises(UserError, match=r"0.png has changed since .*study.sqlite was begun: give another --db"):
        begin(moved)


def test_folders_beside_the_methods(pictures, tmp_path, capsys):
    (pictures / "a2b" / ".ipynb_checkpoints").mkdir()
    (pictures / "a2b" / "alpha" / "1.png").write_bytes(b"broken")
    assert len(find_questions(StudyConfig([pictures]))) == 4 - 1 + 4 - 1
    assert "1.png is not a picture" in capsys.readouterr().err
    (pictures / "a2b" / "notes").mkdir()
    with pytest.raises(UserError, match="notes has no picture: add its pictures, or take the folder away"):
        find_questions(StudyConfig([pictures]))


def test_participants_are_told_the_target_and_shown_some_of_it(pictures, tmp_path):
    for i in range(20):
        write_picture(tmp_path / "dogs" / f"rex-{i}.png", 900 + i, 32)
    client = told(pictures, tmp_path, target=["a2b=dogs", "b2a=<b>cats"], examples=[f"a2b={tmp_path / 'dogs'}"])
    state = client.post("/api/participants").json()
    seen = set()
    while "question" in state:
        seen.add((state["target"], len(state["examples"])))
        for address in state["examples"]:
            assert method_at(client, tmp_path / "dogs", address) == "dogs" and "rex" not in address
        answer = {"question": state["question"], "choice": 0}
        state = client.post(f"/api/participants/{state['code']}/answers", json=answer).json()
    assert seen == {("dogs", 8), ("<b>cats", 0)}
    plain = told(pictures, tmp_path).post("/api/participants").json()
    assert plain["target"] is None and plain["examples"] == []
    both = told(pictures, tmp_path, target=["anime"]).post("/api/participants").json()
    assert both["target"] == "anime", "one name is for all"
    other = client.get(f"/api/pictures/{both['code']}/{both['question']}/example9")
    assert other.status_code == 404


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"target": ["dogs", "cats"]}, "does not tell what is meant for which domain: give a2b=..., b2a=..."),
        ({"target": ["c2d=dogs"]}, "does not tell what is meant"),
        ({"examples": ["{tmp}/none"]}, "does not exist"),
        ({"examples": ["{tmp}/empty"]}, "has no picture to show"),
    ],
)
def test_targets_that_are_not_clear_are_explained(options, reason, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    given = {name: [value.format(tmp=tmp_path) for value in values] for name, values in options.items()}
    with pytest.raises(UserError, match=re.escape(reason)):
        told(pictures, tmp_path, **given)


def test_two_participants_in_a_browser(browser, pictures, tmp_path):
    told = "--target", "a2b=dogs", "b2a=cats", "--examples", f"a2b={pictures / 'a2b' / 'alpha'}"
    with served("study", pictures, "--db", tmp_path / "study.sqlite", *told) as address:
        pages = [browser.new_context().new_page() for _ in range(2)]
        for page in pages:
            page.goto(address)
            page.click("#begin")
            page.wait_for_selector("#candidates img")
            for held in ("Control", "Alt", "Meta"):
                page.keyboard.press(f"{held}+1")  # the browser's own
            assert page.inner_text("#which") in (
                "Which is the best translation into dogs?",
                "Which is the best translation into cats?",
            )
            assert page.is_visible("#examples img") == page.inner_text("#which").endswith("dogs?")
        for done in range(1, 4):
            for page in pages:
                page.dblclick("#candidates button:nth-child(2)")
                page.get_by_text(f"{done} of 7", exact=True).wait_for()
        counts = [page.inner_text("#count") for page in pages]
        codes = [page.inner_text("#mine") for page in pages]
        assert codes[0] != codes[1]
        pages[0].reload()
        pages[0].wait_for_selector("#candidates img")
        assert (pages[0].inner_text("#mine"), pages[0].inner_text("#count")) == (codes[0], counts[0])
        pages[1].click("#pause")
        pages[1].fill("#code", codes[1].lower())
        pages[1].click("#resume button")
        pages[1].wait_for_selector("#candidates img")
        pages[1].keyboard.press("1")
        while pages[1].is_hidden("#end"):
            pages[1].keyboard.press("3")
            pages[1].wait_for_timeout(50)
        pages[0].click("#pause")
        pages[0].fill("#code", "WRONG")
        pages[0].click("#resume button")
        pages[0].wait_for_selector("text=This code is not known")
    kept = judgements(tmp_path / "study.sqlite")
    assert len(kept) == len({row[:2] for row in kept})
    assert Counter(code for code, *_ in kept)[codes[1]] == 7


def test_a_method_s_name_is_its_link_s_own(pictures, tmp_path):
    for method, part in (("ours", "alpha"), ("theirs", "gamma")):
        (tmp_path / method / "x").mkdir(parents=True)
        shutil.copytree(pictures / "a2b" / part, tmp_path / method / "x" / "a2b")
        (tmp_path / f"{method}-link").symlink_to(tmp_path / method / "x" / "a2b")
    config = StudyConfig([tmp_path / "ours-link", tmp_path / "theirs-link"], source=pictures / "a2b" / "source")
    assert set(find_questions(config)[0].candidates) == {"ours-link", "theirs-link"}
