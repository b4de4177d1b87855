"""The preference study (section 3.3.3, Table 2) as a tool: which method's translation do people find best?

A participant sees a source and its translations by all methods, in an order of its own and without names, and points at
the best. What the target domain is called is told, and pictures of it are shown, if these are given. Answers are kept
in SQLite, one row a judgement; a participant is a random code and nothing else.
"""

import base64
import csv
import hashlib
import io
import logging
import os
import random
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional, arg

from ugatit.apps.guard import Rules, address
from ugatit.data.finding import check_pictures, find_files, spread
from ugatit.data.reading import read_picture
from ugatit.evaluation.evaluate import name_in, without_suffix
from ugatit.evaluation.intervals import among_people
from ugatit.experiments.compare import SOURCE
from ugatit.io.errors import UserError, package
from ugatit.io.files import absent, digest, printable, write_text, writing
from ugatit.io.sheet import png
from ugatit.io.terminal import counted, say, some

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # none that look alike
PAGE = Path(__file__).with_name("study.html")
EXAMPLES = 8  # of a target domain
HOURLY = 60  # new participants, and codes that nobody has, that one address may send in an hour
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # beginnings of what a spreadsheet computes
POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; script-src {script}; style-src {style}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SCHEMA = """
CREATE TABLE IF NOT EXISTS secret (word TEXT);
CREATE TABLE IF NOT EXISTS question (id INTEGER PRIMARY KEY, domain TEXT, name TEXT, source TEXT,
    UNIQUE (domain, name));
CREATE TABLE IF NOT EXISTS candidate (question INTEGER REFERENCES question, method TEXT, path TEXT,
    PRIMARY KEY (question, method));
CREATE TABLE IF NOT EXISTS participant (code TEXT PRIMARY KEY, began TEXT DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE IF NOT EXISTS judgement (participant TEXT REFERENCES participant, question INTEGER, method TEXT,
    at TEXT DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (participant, question),
    FOREIGN KEY (question, method) REFERENCES candidate);
CREATE TABLE IF NOT EXISTS picture (place TEXT PRIMARY KEY, sha256 TEXT);
"""


@dataclass(frozen=True)
class StudyConfig:
    """Ask people which of several translations is the best, on a local web page."""

    folders: Positional[list[Path]]
    """One folder that holds DOMAIN/METHOD/PICTURES and DOMAIN/source/PICTURES, as ugatit compare leaves them in
    OUT/pictures. Or, with --source, a folder for each method."""
    source: Path | None = None
    """The folder of the sources. Pictures of the same name belong together."""
    target: list[str] = field(default_factory=list)
    """What participants are told that pictures are translated into, such as anime. For several domains DOMAIN=NAME
    each."""
    examples: list[str] = field(default_factory=list)
    """A folder of pictures of the target domain, of which eight are shown beside. For several domains DOMAIN=FOLDER
    each."""
    db: Path = Path("study.sqlite")
    """The file of the answers. If it exists, the study goes on."""
    questions: Annotated[int, Field(ge=1)] | None = None
    """How many sources each participant is asked about, chosen at random. If it is not given, all."""
    host: str = "127.0.0.1"
    """The address to listen on. 0.0.0.0 opens the page to the whole network."""
    port: Annotated[int, Field(ge=0, le=65535)] = 7861
    """The port to listen on. With 0 any free one is taken."""
    names: list[str] = field(default_factory=list)
    """Names that browsers call this server by, such as a proxy's. Its address and localhost are known anyway."""
    participants: Annotated[int, Field(ge=1)] = 1000
    """How many people may take part. Further ones are turned away."""


@dataclass(frozen=True)
class ReportConfig:
    """Print how often each method was found the best."""

    db: Annotated[Positional[Path], arg(name="db")] = Path("study.sqlite")
    """The file of the answers."""
    csv: Path | None = None
    """A file that the table is also written to."""


class Question(NamedTuple):
    """A source and its translations."""

    domain: str
    name: str
    source: Path
    candidates: dict[str, Path]  # by method


# What is asked


def find_questions(config: StudyConfig) -> list[Question]:
    """The questions that the folders make up; says what is left out.

    Raises:
        UserError: the folders are not laid out as needed, or there is nothing to compare.
    """
    if not config.folders:
        raise UserError(
            "No folder was named: give the folder that ugatit compare left as OUT/pictures, or a folder for each "
            "method and --source DIR."
        )
    if config.source is not None:
        names = [Path(os.path.abspath(folder)).name for folder in config.folders]  # noqa: PTH100, links' own names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"Two folders are called {twice}, and a method's name is its folder's: rename one.")
        return questions_of("", config.source, dict(zip(names, config.folders, strict=True)))
    if len(config.folders) > 1:
        raise UserError("Several folders need --source DIR, the folder of their sources.")
    root = config.folders[0]
    if not root.is_dir():
        raise UserError(f"The folder {root} {absent(root)}.")
    domains = {part.parent for part in [root / SOURCE, *root.glob(f"*/{SOURCE}")] if part.is_dir()}
    if not domains:
        raise UserError(f"{root} has no folder {SOURCE} or DOMAIN/{SOURCE}: name the folders and --source DIR instead.")
    found = []
    for domain in sorted(domains):
        parts = [part for part in sorted(domain.iterdir()) if part.is_dir() and not part.name.startswith(".")]
        methods = {part.name: part for part in parts if part.name != SOURCE}
        if domain != root and len(methods) < 2:
            say(f"left out: {domain}, which has the translations of {counted(len(methods), 'method')}", "yellow")
            continue
        found += questions_of("" if domain == root else domain.name, domain / SOURCE, methods)
    if not found:
        raise UserError(f"{root} has nowhere the translations of several methods: give at least two.")
    return found


def questions_of(domain: str, source: Path, methods: dict[str, Path]) -> list[Question]:
    """The sources of one domain that every method has translated."""
    by_name = {name: pictures_of(folder) for name, folder in {SOURCE: source, **methods}.items()}
    if len(methods) < 2:
        raise UserError(f"{source.parent} has the translations of {len(methods)} methods: give at least two.")
    if empty := next((name for name, found in by_name.items() if not found), None):
        raise UserError(f"{source.parent / empty} has no picture: add its pictures, or take the folder away.")
    common = set.intersection(*(set(found) for found in by_name.values()))
    if not common:
        raise UserError(f"No picture of {source} has the same name in every method's folder: check the names.")
    left = len(by_name[SOURCE]) - len(common)
    if left:
        say(f"left out: {counted(left, 'picture')} of {source} that not every method has", "yellow")
    return [
        Question(domain, name, by_name[SOURCE][name], {method: by_name[method][name] for method in sorted(methods)})
        for name in sorted(common)
    ]


def by_domain(given: list[str], questions: list[Question], option: str) -> dict[str, str]:
    """What was given for each domain: one for all, or DOMAIN=VALUE.

    Raises:
        UserError: there is no such domain, or one for all and others.
    """
    domains = dict.fromkeys(question.domain for question in questions)
    pairs = [value.partition("=") for value in given]
    named = {domain: value for domain, equals, value in pairs if equals and domain in domains}
    if len(named) == len(given):
        return named
    if len(given) == 1 and ("=" not in given[0] or Path(given[0]).is_dir()):
        return dict.fromkeys(domains, given[0])
    known = ", ".join(f"{domain}=..." for domain in domains if domain) or "one for all"
    raise UserError(f"{option} {' '.join(given)} does not tell what is meant for which domain: give {known}.")


def examples_of(folder: Path) -> list[Path]:
    """Some pictures of a target domain.

    Raises:
        UserError: there are none.
    """
    found = spread(list(pictures_of(folder).values()), EXAMPLES)
    if not found:
        raise UserError(f"{folder} has no picture to show as an example: give another --examples.")
    return found


def pictures_of(folder: Path) -> dict[str, Path]:
    """Usable pictures below a folder by their name without suffix.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"The folder {folder} {absent(folder)}.")
    found = find_files(folder)
    odd = [file for file in found if not is_text(file)]
    if odd:
        say(f"left out: {counted(len(odd), 'file')} with a name that is no text: {some(odd)}", "yellow")
    good, skipped = check_pictures(file for file in found if file not in odd)
    for one in skipped:
        say(f"  skipped: {one}")
    named: dict[str, Path] = {}
    for file in good:
        if named.setdefault(str(without_suffix(name_in(folder, file))), file) != file:
            say(f"  left out: {file}, as another picture there has that name with another suffix", "yellow")
    return named


def is_text(file: Path) -> bool:
    """Whether a path can be stored and sent."""
    try:
        return bool(str(file.resolve()).encode())
    except UnicodeEncodeError:
        return False


# What is kept


class Answers:
    """The database: a connection for each call, so that any number of threads may ask.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path):
        self.path = path

    @contextmanager
    def opened(self, new: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction.

        Args:
            new: make the file if it does not exist.

        Raises:
            UserError: the file is not such a database, or cannot be written.
        """
        try:
            mode = "rwc" if new else "rw"  # a file that was deleted is not begun anew
            address = f"{self.path.absolute().as_uri()}?mode={mode}"
            with closing(sqlite3.connect(address, timeout=30, uri=True)) as connection, connection:
                connection.execute("PRAGMA foreign_keys = ON")
                yield connection
        except sqlite3.DatabaseError as error:
            raise UserError(f"The file of answers {self.path} cannot be used ({error}): give another.") from None

    def begin(self, questions: list[Question]) -> dict[Path, str]:
        """Make the tables, or go on with them; the SHA-256 of each picture.

        Raises:
            UserError: the file belongs to a study with other pictures.
        """
        with writing(self.path, "give another --db"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.opened(new=True) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(SCHEMA)
            connection.execute(
                "INSERT INTO secret SELECT ? WHERE NOT EXISTS (SELECT 1 FROM secret)", (secrets.token_hex(16),)
            )
            rows = [(q.domain, q.name, method) for q in questions for method in q.candidates]
            known = connection.execute(
                "SELECT domain, name, method FROM question JOIN candidate ON question = id ORDER BY id, method"
            ).fetchall()
            if known and known != rows:
                raise UserError(f"{self.path} belongs to a study of other pictures: give another --db.")
            before, whole = dict(connection.execute("SELECT place, sha256 FROM picture").fetchall()), {}
            for number, q in enumerate(questions, start=1):
                pictures = {"": q.source, **q.candidates}
                for method, path in pictures.items():
                    sha256, place = digest(path), f"{number}/{method}"
                    if before.get(place, sha256) != sha256:
                        raise UserError(f"{path} has changed since {self.path} was begun: give another --db.")
                    connection.execute("INSERT OR REPLACE INTO picture VALUES (?, ?)", (place, sha256))
                    whole[path] = sha256
                row = number, q.domain, q.name, str(q.source.resolve())
                connection.execute(
                    "INSERT INTO question VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET source = excluded.source",
                    row,
                )
                connection.executemany(
                    "INSERT INTO candidate VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET path = excluded.path",
                    [(number, method, str(path.resolve())) for method, path in q.candidates.items()],
                )
        return whole

    def secret(self) -> str:
        """What the orders depend on besides the participants' codes, which they know."""
        with self.opened() as connection:
            return connection.execute("SELECT word FROM secret").fetchone()[0]

    def new_participant(self, most: int) -> str | None:
        """A new participant's code; None if there are ``most`` participants already, of whom those do not count who
        began an hour ago or earlier and have answered nothing."""
        code = "".join(secrets.choice(LETTERS) for _ in range(8))
        with self.opened() as connection:
            made = connection.execute(
                """
                INSERT INTO participant (code) SELECT ? WHERE (
                    SELECT COUNT(*) FROM participant WHERE began > datetime('now', '-1 hour')
                    OR EXISTS (SELECT 1 FROM judgement WHERE participant = code)
                ) < ?
                """,
                (code, most),
            )
            return code if made.rowcount else None

    def known(self, code: str) -> bool:
        """Whether there is a participant with that code."""
        with self.opened() as connection:
            return connection.execute("SELECT 1 FROM participant WHERE code = ?", (code,)).fetchone() is not None

    def answered(self, code: str) -> set[int]:
        """The questions that a participant has answered."""
        with self.opened() as connection:
            return {
                row[0] for row in connection.execute("SELECT question FROM judgement WHERE participant = ?", (code,))
            }

    def judge(self, code: str, question: int, method: str) -> None:
        """Keep a judgement; the first one of a participant on a question counts."""
        with self.opened() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO judgement (participant, question, method) VALUES (?, ?, ?)",
                (code, question, method),
            )

    def counts(self) -> dict[tuple[str, str], dict[str, tuple[int, int]]]:
        """By domain and method, and by participant: how often it was chosen, and of how many judgements.

        Raises:
            UserError: the file does not exist, or is no such database.
        """
        if self.path.is_dir():
            raise UserError(f"{self.path} is a folder: give the file that ugatit study wrote.")
        if not self.path.is_file():
            raise UserError(f"{self.path} does not exist: give the file that ugatit study wrote.")
        with self.opened() as connection:
            rows = connection.execute(
                """
                SELECT domain, candidate.method, participant,
                    COALESCE(SUM(candidate.method = judgement.method), 0), COUNT(judgement.method)
                FROM question JOIN candidate ON candidate.question = id LEFT JOIN judgement ON judgement.question = id
                GROUP BY domain, candidate.method, participant ORDER BY domain, candidate.method
                """
            ).fetchall()
        found: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
        for domain, method, participant, chosen, judgements in rows:
            people = found.setdefault((domain, method), {})
            if participant is not None:  # None stands for questions that nobody has answered
                people[participant] = chosen, judgements
        return found


# What comes of it (Table 2)

DATA_SETS = ("selfie2anime", "horse2zebra", "cat2dog", "photo2portrait", "photo2vangogh")
PAPER = {  # per cent of 135 participants' choices
    "U-GAT-IT": (73.15, 73.56, 58.22, 30.59, 48.96),
    "CycleGAN": (20.07, 23.07, 6.19, 26.59, 27.33),
    "UNIT": (1.48, 0.85, 18.63, 32.11, 11.93),
    "MUNIT": (3.41, 1.04, 14.48, 8.22, 2.07),
    "DRIT": (1.89, 1.48, 2.48, 2.48, 9.70),
}


class Share(NamedTuple):
    """How often a method was found the best."""

    domain: str
    method: str
    chosen: int
    judgements: int
    participants: int  # who judged
    percent: float
    low: float  # of the 95 % interval, in per cent
    high: float


def shares(answers: Answers) -> list[Share]:
    """Every method's share in every domain, the best first; over all domains, called "all", if there are several that
    have the same methods."""
    counts = answers.counts()
    domains, methods = ({key[place] for key in counts} for place in (0, 1))
    if len(domains) > 1 and len(counts) == len(domains) * len(methods):
        for method in sorted(methods):
            people: dict[str, tuple[int, int]] = {}
            for domain in domains:
                for who, (chosen, of) in counts[domain, method].items():
                    before = people.get(who, (0, 0))
                    people[who] = before[0] + chosen, before[1] + of
            counts["all", method] = people
    rows = []
    for (domain, method), people in counts.items():
        chosen, of = (sum(pair[place] for pair in people.values()) for place in (0, 1))
        low, high = among_people(list(people.values()))
        share = chosen / of if of else 0.0
        rows.append(Share(domain, method, chosen, of, len(people), 100 * share, 100 * low, 100 * high))
    order = {domain: i for i, domain in enumerate(dict.fromkeys(row.domain for row in rows))}
    return sorted(rows, key=lambda row: (order[row.domain], -row.percent))


def report_table(rows: list[Share]) -> Table:
    """The preference table for the terminal."""
    columns = ("domain", "method", "best in %", "95 % interval", "chosen", "of", "participants")
    table = Table(*columns, title="Preference (Table 2)")
    for row in rows:
        interval = f"{row.low:.1f} to {row.high:.1f}"
        names = Text(printable(row.domain)), Text(printable(row.method))  # brackets are no markup
        table.add_row(
            *names, f"{row.percent:.1f}", interval, str(row.chosen), str(row.judgements), str(row.participants)
        )
    return table


def paper_table() -> Table:
    """The paper's Table 2 for the terminal."""
    table = Table("method", title="The paper's, in % of 135 participants' choices")
    for name in DATA_SETS:
        table.add_column(name, overflow="fold")
    for method, percents in PAPER.items():
        table.add_row(method, *[f"{percent:.2f}" for percent in percents])
    return table


def write_csv(rows: list[Share], path: Path) -> None:
    """Write the preference table as CSV, atomically; an apostrophe stands before names that a spreadsheet would run."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(Share._fields)
    for row in rows:
        writer.writerow(f"'{cell}" if str(cell).startswith(FORMULA) else cell for cell in row)
    write_text(path, buffer.getvalue())


# The page


class Answer(BaseModel):
    """What a participant sends."""

    question: Annotated[int, Field(ge=1, le=10**9)]
    choice: Annotated[int, Field(ge=0, le=10**9)]  # place among the candidates as this participant sees them


class Study:
    """What each participant is shown next.

    Args:
        questions: all of them, numbered from 1 in the database.
        answers: the database.
        asked: how many each participant gets; all if None.
        targets: what the target of a domain is called.
        examples: pictures of the target of a domain.
    """

    def __init__(
        self,
        questions: list[Question],
        answers: Answers,
        asked: int | None,
        targets: dict[str, str],
        examples: dict[str, list[Path]],
    ):
        self.questions, self.answers, self.targets, self.examples = questions, answers, targets, examples
        self.asked = min(asked or len(questions), len(questions))
        self.secret = answers.secret()

    def order(self, code: str) -> list[int]:
        """The numbers of a participant's questions, always the same for the code."""
        return random.Random(f"{self.secret} {code}").sample(range(1, len(self.questions) + 1), self.asked)

    def methods(self, code: str, number: int) -> list[str]:
        """A question's methods in the order in which the participant sees them."""
        methods = list(self.questions[number - 1].candidates)
        random.Random(f"{self.secret} {code} {number}").shuffle(methods)
        return methods

    def state(self, code: str) -> dict[str, Any]:
        """What the page shows: how far the participant is, and the next question's pictures."""
        order, answered = self.order(code), self.answers.answered(code)
        number = next((number for number in order if number not in answered), None)
        state: dict[str, Any] = {"code": code, "done": sum(n in answered for n in order), "total": len(order)}
        if number is not None:
            base = f"api/pictures/{code}/{number}"
            question = self.questions[number - 1]
            places = range(len(question.candidates))
            state |= {"question": number, "source": f"{base}/source", "candidates": [f"{base}/{i}" for i in places]}
            shown = range(len(self.examples.get(question.domain, [])))
            state |= {"target": self.targets.get(question.domain), "examples": [f"{base}/example{i}" for i in shown]}
        return state

    def picture(self, code: str, number: int, place: str) -> Path | None:
        """The file of a participant's picture: "source", a place among the candidates, or "example" and a number."""
        if number not in self.order(code):
            return None
        question = self.questions[number - 1]
        if place == SOURCE:
            return question.source
        places = {str(i): question.candidates[method] for i, method in enumerate(self.methods(code, number))}
        places |= {f"example{i}": path for i, path in enumerate(self.examples.get(question.domain, []))}
        return places.get(place)

    def judge(self, code: str, answer: Answer) -> bool:
        """Keep an answer; whether it was to a question of this participant's."""
        methods = self.methods(code, answer.question) if answer.question in self.order(code) else []
        if answer.choice not in range(len(methods)):
            return False
        self.answers.judge(code, answer.question, methods[answer.choice])
        return True


def application(config: StudyConfig) -> Any:
    """The FastAPI application of a study.

    Raises:
        UserError: the folders or the database cannot be used, or fastapi is not installed.
    """
    package("fastapi", "web")
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse, Response

    questions, answers = find_questions(config), Answers(config.db)
    targets = by_domain(config.target, questions, "--target")
    folders = by_domain(config.examples, questions, "--examples")
    examples = {domain: examples_of(Path(folder)) for domain, folder in folders.items()}
    whole = answers.begin(questions)
    study = Study(questions, answers, config.questions, targets, examples)
    say(f"{len(questions)} sources, {len(questions[0].candidates)} methods, answers go to {config.db}")
    app = FastAPI(title="ugatit study", docs_url=None, redoc_url=None, openapi_url=None)
    begun, guessed = Pace(HOURLY), Pace(HOURLY)

    def participant(code: str, request: Request) -> str:
        if not answers.known(code):
            guessed.check(request.client)
            raise HTTPException(404, "This code is not known: check it, or begin anew.")
        return code

    @app.exception_handler(UserError)
    async def unkept(_request: Request, error: UserError) -> Response:
        logging.getLogger(__name__).error("%s", error)
        return JSONResponse({"detail": "The answers cannot be kept just now: try again in a while."}, 503)

    @app.exception_handler(RequestValidationError)
    async def explain(_request: Request, _error: RequestValidationError) -> Response:
        return JSONResponse({"detail": "This is no answer to one of your questions: reload the page."}, 422)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE)

    @app.post("/api/participants")
    def begin(request: Request) -> dict[str, Any]:
        begun.check(request.client)
        code = answers.new_participant(config.participants)
        if code is None:
            raise HTTPException(409, "This study has all its participants: thank you all the same.")
        return study.state(code)

    @app.get("/api/participants/{code}")
    def state(code: str, request: Request) -> dict[str, Any]:
        return study.state(participant(code, request))

    @app.post("/api/participants/{code}/answers")
    def judge(code: str, answer: Answer, request: Request) -> dict[str, Any]:
        if not study.judge(participant(code, request), answer):
            raise HTTPException(422, "This is no answer to one of your questions: reload the page.")
        return study.state(code)

    @app.get("/api/pictures/{code}/{number}/{place}")
    def picture(code: str, number: int, place: str, request: Request) -> Response:
        path = study.picture(participant(code, request), number, place)
        try:
            if path is None:
                raise ValueError
            data = shown(path, whole.get(path))
        except ValueError:
            raise HTTPException(404, "There is no such picture: reload the page.") from None
        except UserError as error:
            logging.getLogger(__name__).error("%s", error)
            raise HTTPException(503, "This picture is not as it was: try again in a while.") from None
        return Response(data, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    return app


@lru_cache(maxsize=64)
def shown(path: Path, sha256: str | None) -> bytes:
    """A picture as participants get it: a PNG file that tells nothing of the file it was, nor when that was made.

    Args:
        path: of its file.
        sha256: of what the file shall hold; anything if it is None.

    Raises:
        ValueError: it cannot be read any more.
        UserError: it holds something else.
    """
    if sha256 is not None and digest(path) != sha256:
        raise UserError(f"{path} has changed since the study was begun: put it back, or begin another study.")
    return png(read_picture(path))


class Pace:
    """How often an address may do something in an hour; this machine as often as it likes.

    Args:
        most: that often.
    """

    def __init__(self, most: int):
        self.most = most
        self.times: dict[str, deque[float]] = {}
        self.lock = threading.Lock()

    def check(self, client: Any) -> None:
        """Count one more time for the address of a request's client.

        Raises:
            HTTPException: it was too often, status 429.
        """
        from fastapi import HTTPException

        key = address(getattr(client, "host", None))
        if not key:
            return
        now = time.monotonic()
        with self.lock:
            self.times = {k: times for k, times in self.times.items() if now - times[-1] < 3600}
            times = self.times.setdefault(key, deque(maxlen=self.most))
            if len(times) == self.most and now - times[0] < 3600:
                raise HTTPException(429, "Too many requests come from your address: try again in an hour.")
            times.append(now)


def rules(config: StudyConfig) -> Rules:
    """What the guard of the study lets through; the page's own script and style are known by their hashes."""
    text = PAGE.read_text("utf-8")
    hashes = {}
    for tag in ("script", "style"):
        inner = text.split(f"<{tag}>", 1)[1].split(f"</{tag}>", 1)[0]
        hashes[tag] = f"'sha256-{base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()}'"
    return Rules(POLICY.format(**hashes), config.names, config.host)
