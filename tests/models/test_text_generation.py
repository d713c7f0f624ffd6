"""Text generators: what is checked for all of them, and each adapter; endpoints against a server on this machine."""

import copy
import json
import socket
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated

import pytest
import torch
from pydantic import BaseModel, ConfigDict

from didact.core.errors import BadInput, DidactError, MissingExtra
from didact.models.language import gpt_tiny
from didact.models.text_generation import (
    CallableGenerator,
    GeneratorError,
    GeneratorField,
    HFGenerator,
    OpenAIGenerator,
    Recorder,
    ReplayGenerator,
    Rule,
    RuleGenerator,
    conforming,
    generator_from,
)
from didact.models.text_generation.schema import Mismatch
from didact.models.tokenizer import word_tokenizer

ASK = [{"role": "user", "content": "Who wrote Faust ?"}]
RATINGS = {
    "type": "object",
    "properties": {"ratings": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 5}}},
    "required": ["ratings"],
    "additionalProperties": False,
}

# -- the server that plays a model ---------------------------------------------------------------------------------


class Server:
    """Plays an OpenAI-compatible model: one scripted answer a request, the last one again and again."""

    def __init__(self, *script):
        self.script, self.requests, self.keys = list(script), [], []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.requests.append(body)
                owner.keys.append(self.headers.get("Authorization"))
                step = owner.script[min(len(owner.requests), len(owner.script)) - 1]
                status, headers, answer = step(body)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *args: None  # the client of the slow answer has gone
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def generator(self, **options):
        return OpenAIGenerator(self.url, "toy", **{"api_key_env": None, "timeout": 5.0, "retries": 2, **options})


@contextmanager
def serving(*script):
    server = Server(*script)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def saying(*texts):
    """A well-formed completion."""

    def step(body):
        choices = [
            {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for i, text in enumerate(texts)
        ]
        return 200, {}, {"id": "1", "object": "chat.completion", "created": 0, "model": "toy", "choices": choices}

    return step


def answering(status, answer, **headers):
    return lambda body: (status, headers, answer)


def failing(status, message, **headers):
    # the wait is given in milliseconds, so that the test does not sit out the package's own half second
    waits = {"retry-after-ms": "5"} if status >= 429 and not headers else {}
    return answering(status, {"error": {"message": message}}, **waits, **headers)


def slow(seconds):
    def step(body):
        time.sleep(seconds)
        return saying("late")(body)

    return step


def refusing_schemas(body):
    if "response_format" in body:
        return failing(400, "response_format is not supported by this model")(body)
    return saying('{"ratings": [5, 4]}')(body)


# -- what is checked for every generator ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [[], "Who ?", {"role": "user", "content": "Who ?"}, [{"content": "x"}], [{"role": "robot", "content": "x"}],
     [{"role": "user", "content": 3}]],
)  # fmt: skip
def test_malformed_messages_are_refused(messages):
    with pytest.raises(BadInput, match="message"):
        RuleGenerator(default="x").generate(messages)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"max_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(BadInput, match="must be"):
        RuleGenerator(default="x").generate(ASK, **wrong)


def test_calls_are_counted_and_messages_left_alone():
    def meddle(messages):
        messages[0]["content"] = "changed"
        return "done"

    generator, messages = CallableGenerator(meddle), [dict(ASK[0])]
    assert generator.calls == 0
    assert generator.generate(messages, n=3) == ["done"] * 3
    assert generator.calls == 1
    assert messages == ASK


@pytest.mark.parametrize("given", [["one"], ["one", 2], [], ["a", "b", "c"]])
def test_another_number_of_texts_than_asked_for_is_an_error(given):
    with pytest.raises(GeneratorError, match="asked for 2 texts"):
        CallableGenerator(lambda messages, n: given, "few").generate(ASK, n=2)


def test_a_generator_error_is_one_of_ours():
    assert issubclass(GeneratorError, DidactError)


@pytest.mark.parametrize(
    "reply",
    ["[5, 4]", '{"ratings": [5, 6]}', '{"ratings": [0]}', '{"ratings": [4.5]}', '{"ratings": [true]}',
     '{"ratings": ["5"]}', '{"rating": [5]}', '{"ratings": [5], "more": 1}', '{"ratings": 5}', "ratings: 5",
     '{"ratings": [5]', "", '{"ratings": [NaN]}', "[" * 100000],
)  # fmt: skip
def test_what_does_not_fit_the_schema_is_an_error(reply):
    with pytest.raises(GeneratorError, match="schema"):
        CallableGenerator(lambda messages: reply, "loose", schema=True).generate(ASK, schema=RATINGS)


@pytest.mark.parametrize("reply", ['{"ratings": [5, 4]}', '```json\n{"ratings": [5, 4]}\n```', ' {"ratings":[5,4]}\n'])
def test_what_fits_the_schema_comes_back_as_json(reply):
    generator = CallableGenerator(lambda messages: reply, schema=True)
    assert json.loads(generator.generate(ASK, schema=RATINGS)[0]) == {"ratings": [5, 4]}


def test_the_schema_keywords():
    fits = [
        ({"enum": ["a", "b"]}, '"a"', '"c"'),
        ({"type": ["string", "null"]}, "null", "1"),
        ({"type": "number"}, "1.5", '"1.5"'),
        ({"type": "boolean"}, "true", "1"),
        ({"type": "string", "minLength": 2}, '"ab"', '"a"'),
        ({"type": "array", "minItems": 1, "maxItems": 2}, "[1]", "[1, 2, 3]"),
        ({"items": {"type": "integer"}}, "[1]", "[[]]"),
        ({"properties": {"a": {"type": "integer"}}}, '{"b": 1}', '{"a": "x"}'),
    ]
    for schema, good, bad in fits:
        assert conforming(good, schema) == good
        with pytest.raises(Mismatch):
            conforming(bad, schema)
    with pytest.raises(BadInput, match="pattern"):  # an ignored keyword would let wrong replies pass
        conforming('"a"', {"type": "string", "pattern": "b"})


def test_a_generator_without_schemas_says_so():
    with pytest.raises(BadInput, match="cannot be held to a schema"):
        CallableGenerator(lambda messages: "x").generate(ASK, schema=RATINGS)


# -- settings ------------------------------------------------------------------------------------------------------


class Holder(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    writer: Annotated[GeneratorField, "a comment"]


def test_generators_are_described_by_json(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_KEY", "sesame")
    recording = tmp_path / "talk.jsonl"
    Recorder(RuleGenerator(default="x"), recording).generate(ASK)
    made = [
        OpenAIGenerator("http://127.0.0.1:1/v1", "toy", "TOY_KEY", 3.0, 1),
        RuleGenerator([("a(b)", r"\1"), Rule("c", ("d", "e"))], "x", "mine"),
        ReplayGenerator(recording),
        Recorder(RuleGenerator(default="y"), recording),
    ]
    for generator in made:
        text = json.dumps(generator.settings)
        assert "sesame" not in text
        again = generator_from(json.loads(text))
        assert type(again) is type(generator)
        assert again == generator
        assert hash(again) == hash(generator)
        held = Holder(writer=generator)
        assert Holder(**json.loads(held.model_dump_json())) == held
        assert copy.deepcopy(generator) == generator
    assert made[0] != made[1]


def test_settings_may_stand_in_a_file(tmp_path):
    file = tmp_path / "judge.json"
    file.write_text(json.dumps(RuleGenerator(default="y").settings))
    assert Holder(writer=str(file)).writer == RuleGenerator(default="y")
    for text in ("{", "[]"):
        file.write_text(text)
        with pytest.raises(ValueError, match="writer"):
            Holder(writer=str(file))
    with pytest.raises(ValueError, match="no settings of a text generator"):
        Holder(writer=tmp_path / "missing.json")


def test_generators_in_memory_are_given_again():
    own = CallableGenerator(str.upper, "loud")
    with pytest.raises(BadInput, match=r"'loud' .* in memory only"):
        generator_from(own.settings)
    assert generator_from(own.settings, {"loud": own}) is own
    assert own != CallableGenerator(str.lower, "loud")


@pytest.mark.parametrize("settings", [{"kind": "magic"}, {}, {"kind": "openai"}, {"kind": "rules", "nonsense": 1}])
def test_wrong_descriptions_are_refused(settings):
    with pytest.raises(BadInput, match="text generator of the kind"):
        generator_from(settings)


# -- the adapters --------------------------------------------------------------------------------------------------


def test_a_function_gets_the_options_it_takes():
    def takes(messages, temperature, seed=None):
        return f"{messages[-1]['content']} {temperature} {seed}"

    assert CallableGenerator(takes).generate(ASK, temperature=0.5, seed=3) == ["Who wrote Faust ? 0.5 3"]
    assert CallableGenerator(lambda m, n: ["a", "b"][:n]).generate(ASK, n=2) == ["a", "b"]
    assert CallableGenerator(lambda m, **options: str(sorted(options))).generate(ASK, n=1) == [
        "['max_tokens', 'n', 'schema', 'seed', 'temperature']"
    ]


def test_what_a_function_raises_is_a_generator_error():
    with pytest.raises(GeneratorError, match="ZeroDivisionError"):
        CallableGenerator(lambda messages: 1 / 0, "odd").generate(ASK)


def test_rules_answer_in_order():
    rules = RuleGenerator([(r"wrote (\w+)", r"\1 has an author."), ("who", "Nobody."), (".", ("a", "b"))])
    assert rules.generate(ASK) == ["Faust has an author."]
    assert rules.generate([{"role": "user", "content": "WHO are you"}]) == ["Nobody."]
    assert rules.generate([*ASK, {"role": "user", "content": "x"}], n=3) == ["a", "b", "a"]
    assert rules.evidence == "orchestration check"


def test_without_a_rule_there_is_an_error():
    with pytest.raises(GeneratorError, match="No rule"):
        RuleGenerator([("x", "y")]).generate(ASK)
    with pytest.raises(GeneratorError, match="names a group"):
        RuleGenerator([("Who", r"\2")]).generate(ASK)


@pytest.mark.parametrize("rules", [[("(", "x")], [("a", ())]])
def test_wrong_rules_are_refused(rules):
    with pytest.raises(BadInput, match="rule"):
        RuleGenerator(rules)


def test_what_was_recorded_is_played_again(tmp_path):
    file = tmp_path / "deep" / "talk.jsonl"
    replies = iter(["first", "second", "ünïcode", '{"ratings": [1]}'])
    live = Recorder(CallableGenerator(lambda m: next(replies), "live", schema=True, evidence="quality"), file)
    assert live.evidence == "quality"
    assert live.name == "live"
    said = [
        live.generate(ASK),
        live.generate(ASK),
        live.generate(ASK, temperature=1.0, seed=2),
        live.generate(ASK, schema=RATINGS),
    ]
    with pytest.raises(GeneratorError):
        live.generate(ASK)  # nothing left to say: not recorded
    again = ReplayGenerator(file)
    assert again.name == "replay of live"
    assert again.evidence == "orchestration check"
    assert again.generate(ASK, schema=RATINGS) == said[3]
    assert again.generate(ASK, temperature=1.0, seed=2) == said[2]
    assert [again.generate(ASK) for _ in range(3)] == [said[0], said[1], said[1]]
    assert len(file.read_text(encoding="utf-8").splitlines()) == 4


@pytest.mark.parametrize("other", [{"n": 2}, {"temperature": 0.1}, {"seed": 1}, {"max_tokens": 5}])
def test_a_request_that_was_not_recorded_is_an_error(tmp_path, other):
    Recorder(RuleGenerator(default="x"), tmp_path / "talk.jsonl").generate(ASK)
    with pytest.raises(GeneratorError, match="no answer to this request"):
        ReplayGenerator(tmp_path / "talk.jsonl").generate(ASK, **other)


def test_a_broken_recording_is_named_with_its_line(tmp_path):
    file = tmp_path / "talk.jsonl"
    with pytest.raises(BadInput, match="no recording"):
        ReplayGenerator(file)
    for line in ("{", "[]", '{"request": {}}', '{"request": {}, "replies": "x"}'):
        file.write_text(f"\n{line}\n")
        with pytest.raises(BadInput, match="line 2"):
            ReplayGenerator(file)


# -- a Hugging Face model ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parrot():
    """A tiny model with random weights and its tokenizer."""
    tokenizer = word_tokenizer(["Who wrote Faust ? Goethe did . alpha beta gamma delta epsilon zeta eta theta"])
    torch.manual_seed(0)
    return gpt_tiny(len(tokenizer), hidden=16, layers=1, heads=2, positions=16).eval(), tokenizer


def greedy(model, ids, count):
    """The most probable continuation, one full pass a token."""
    new = []
    for _ in range(count):
        new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
        if new[-1] == 2:
            break
    return new


def test_temperature_0_is_greedy(parrot):
    model, tokenizer = parrot
    ids = [tokenizer.bos_token_id, *tokenizer.encode(ASK[0]["content"])]
    expected = tokenizer.decode(greedy(model, ids, 6), skip_special_tokens=True)
    model.train()
    generator = HFGenerator(model, tokenizer, "parrot")
    assert generator.generate(ASK, n=2, max_tokens=6) == [expected] * 2
    assert model.training  # left as it was
    model.eval()


def test_sampling_follows_the_seed_and_leaves_torch_alone(parrot):
    generator = HFGenerator(*parrot)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    once = generator.generate(ASK, n=3, temperature=2.0, seed=1, max_tokens=8)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert generator.generate(ASK, n=3, temperature=2.0, seed=1, max_tokens=8) == once
    assert generator.generate(ASK, n=3, temperature=2.0, seed=2, max_tokens=8) != once
    assert len(set(once)) > 1


def test_messages_are_joined_or_put_in_the_chat_template(parrot):
    model, tokenizer = parrot
    two = [{"role": "system", "content": "alpha beta"}, {"role": "user", "content": "gamma"}]
    plain = HFGenerator(model, tokenizer)
    joined = [{"role": "user", "content": "alpha beta gamma"}]
    assert plain.generate(two, max_tokens=5) == plain.generate(joined, max_tokens=5)
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = "{% for m in messages %}{{ m['content'] }} delta {% endfor %}"
    expected = [{"role": "user", "content": "alpha beta delta gamma delta"}]
    ids = tokenizer.encode(expected[0]["content"])  # the template decides on the first token, too
    said = tokenizer.decode(greedy(model, ids, 5), skip_special_tokens=True)
    assert HFGenerator(model, chatty).generate(two, max_tokens=5) == [said]


def test_a_prompt_longer_than_the_model_is_an_error(parrot):
    generator = HFGenerator(*parrot)
    assert generator.generate([{"role": "user", "content": "alpha " * 14}], max_tokens=50)  # one position is left
    with pytest.raises(GeneratorError, match=r"17 tokens, but .* 16 positions"):
        generator.generate([{"role": "user", "content": "alpha " * 16}])


# -- an endpoint ---------------------------------------------------------------------------------------------------


def test_an_endpoint_answers(monkeypatch):
    monkeypatch.setenv("TOY_KEY", "sesame")
    with serving(saying("Goethe.")) as server:
        generator = server.generator(api_key_env="TOY_KEY")
        assert generator.generate(ASK, max_tokens=9, seed=4) == ["Goethe."]
        (request,) = server.requests
        assert request["messages"] == ASK
        assert (request["model"], request["temperature"], request["max_tokens"], request["seed"]) == ("toy", 0, 9, 4)
        assert server.keys == ["Bearer sesame"]
        assert copy.deepcopy(generator) == generator  # an open connection is no hindrance


def test_several_replies_at_once_or_one_after_the_other():
    with serving(saying("a", "b", "c")) as server:
        assert server.generator().generate(ASK, n=3) == ["a", "b", "c"]
        assert server.requests[0]["n"] == 3
    with serving(saying("a"), saying("b"), saying("c")) as server:
        assert server.generator().generate(ASK, n=3, seed=7) == ["a", "b", "c"]
        assert [request.get("seed") for request in server.requests] == [7, 8, 9]
        assert [request.get("n") for request in server.requests] == [3, 2, None]
    with serving(saying("a", "b", "c")) as server:
        assert server.generator().generate(ASK, n=2) == ["a", "b"]


def test_a_slow_server_is_given_up():
    with serving(slow(0.6)) as server, pytest.raises(GeneratorError, match=r"within 0\.1 seconds \(1 tries\)"):
        server.generator(timeout=0.1, retries=0).generate(ASK)


def test_a_time_out_is_tried_again():
    with serving(slow(0.6), saying("in time")) as server:
        assert server.generator(timeout=0.2).generate(ASK) == ["in time"]


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_passing_trouble_is_tried_again(status):
    with serving(failing(status, "busy"), failing(status, "busy"), saying("at last")) as server:
        assert server.generator().generate(ASK) == ["at last"]
        assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "message"), [(500, "status 500"), (429, r"rate limit or quota \(tries: 3\)")])
def test_lasting_trouble_is_an_error(status, message):
    with serving(failing(status, "still busy")) as server, pytest.raises(GeneratorError, match=message):
        server.generator().generate(ASK)
    assert len(server.requests) == 3


def test_the_wait_a_server_asks_for_is_kept():
    with serving(failing(429, "slow down", **{"Retry-After": "0.3"}), saying("ok")) as server:
        start = time.monotonic()
        assert server.generator().generate(ASK) == ["ok"]
        assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (answering(200, b'{"choices": ['), "not a completion"),
        (answering(200, b"<html>gateway</html>", **{"Content-Type": "text/html"}), "without a choice"),
        (answering(200, b""), "not a completion|without a choice"),
        (answering(200, {"choices": []}), "without a choice"),
        (answering(200, {"answer": "Goethe"}), "without a choice"),
        (answering(200, []), "without a choice"),
        (answering(200, {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}), "filter"),
        (answering(200, {"choices": [{"text": "old form"}]}), "without a text"),
        (answering(200, {"choices": [None]}), "without a text"),
        (failing(401, "Incorrect key"), "refused the key"),
        (failing(403, "Not yours"), "refused the key"),
        (failing(404, "no such model"), "not found"),
        (failing(400, "context too long"), "context too long"),
        (failing(418, "a teapot"), "status 418"),
    ],
)
def test_answers_of_another_form_are_errors(step, message):
    with serving(step) as server, pytest.raises(GeneratorError, match=message):
        server.generator(retries=0).generate(ASK)


def test_a_server_that_is_not_there():
    with socket.socket() as taken:  # bound but not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(GeneratorError, match="cannot be reached"):
            OpenAIGenerator(url, "toy", None, retries=0).generate(ASK)


def test_a_schema_goes_as_response_format():
    with serving(saying('{"ratings": [5]}')) as server:
        assert server.generator().generate(ASK, schema=RATINGS) == ['{"ratings": [5]}']
        form = server.requests[0]["response_format"]
        assert form["type"] == "json_schema"
        assert form["json_schema"]["schema"] == RATINGS


@pytest.mark.parametrize("text", ["Five.", '{"ratings": [9]}', '{"stars": [5]}', '{"ratings": [5]'])
def test_a_reply_that_breaks_the_schema_is_an_error(text):
    with serving(saying(text)) as server, pytest.raises(GeneratorError, match="did not keep to the schema"):
        server.generator().generate(ASK, schema=RATINGS)


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_schemas_is_asked_in_words(status):
    def refusing(body):
        found = refusing_schemas(body)
        return (status, *found[1:]) if found[0] == 400 else found

    with serving(refusing) as server:
        generator = server.generator()
        with pytest.warns(UserWarning, match="refuses response_format"):
            assert generator.generate(ASK, schema=RATINGS) == ['{"ratings": [5, 4]}']
        assert [("response_format" in request) for request in server.requests] == [True, False]
        assert '"ratings"' in server.requests[1]["messages"][0]["content"]
        assert server.requests[1]["messages"][1:] == ASK
        with warnings.catch_warnings():  # said once, and not tried again
            warnings.simplefilter("error")
            generator.generate(ASK, schema=RATINGS)
        assert len(server.requests) == 3


def test_another_refusal_is_not_taken_for_that_of_schemas():
    with serving(
        failing(400, "context too long"), failing(400, "context too long"), saying('{"ratings": [1]}')
    ) as server:
        generator = server.generator()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(GeneratorError, match="context too long"):
                generator.generate(ASK, schema=RATINGS)
            generator.generate(ASK, schema=RATINGS)
        assert "response_format" in server.requests[-1]


def test_a_server_that_names_the_length_otherwise():
    def step(body):
        if "max_tokens" in body:
            return failing(400, "Unsupported parameter: use 'max_completion_tokens' instead")(body)
        return saying("ok")(body)

    with serving(step) as server:
        generator = server.generator()
        assert generator.generate(ASK, max_tokens=7) == ["ok"]
        assert generator.generate(ASK, max_tokens=7) == ["ok"]
        assert [request.get("max_completion_tokens") for request in server.requests] == [None, 7, 7]


def test_a_missing_key_is_named(monkeypatch):
    monkeypatch.delenv("TOY_KEY", raising=False)
    with serving(saying("x")) as server, pytest.raises(BadInput, match="TOY_KEY is not set"):
        server.generator(api_key_env="TOY_KEY").generate(ASK)
    assert server.requests == []


@pytest.mark.parametrize("wrong", [{"base_url": "localhost:8000"}, {"timeout": 0}, {"retries": -1}])
def test_wrong_endpoints_are_refused(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        OpenAIGenerator(**{"base_url": "http://127.0.0.1:1/v1", "model": "toy", **wrong})


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"didact\[agents\]"):
        OpenAIGenerator("http://127.0.0.1:1/v1", "toy", None).generate(ASK)
