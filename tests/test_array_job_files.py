"""Job files for HTCondor, AWS Batch and Google Batch: their packages read them, and our parser takes their commands."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from deploy_environment import module

from workflows.cli import _parser
from workflows.verbs.arguments import settings

DEPLOY = Path(__file__).parents[1] / "deploy"
RUN = DEPLOY / "kubernetes" / "components" / "run" / "run.toml"


def called(words: list[str]) -> dict[str, Any]:
    """What `infer` is called with by a command, with the run.toml of this repository."""
    return settings(_parser().parse_args([re.sub(r"=\S*run\.toml$", f"={RUN}", word) for word in words]))


def test_aws_batch_jobs_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = json.loads((DEPLOY / "aws-batch" / "job-definition.json").read_text())
    submitted = json.loads((DEPLOY / "aws-batch" / "submit.json").read_text())
    assert submitted["jobDefinition"] == definition["jobDefinitionName"]
    given = {f"Ref::{name}": value for name, value in definition["parameters"].items()}
    monkeypatch.setenv("AWS_BATCH_JOB_ARRAY_INDEX", "5")
    monkeypatch.setenv("AWS_BATCH_JOB_ARRAY_SIZE", str(submitted["arrayProperties"]["size"]))
    told = called([given.get(word, word) for word in definition["containerProperties"]["command"]])
    assert told["execution"].shard == (5, 64)
    run = tomllib.loads(RUN.read_text())
    assert (told["source"], told["bundle"], told["out"]) == (run["source"], run["bundle"], run["out"])
    first = definition["retryStrategy"]["evaluateOnExit"][0]
    assert first == {"onExitCode": "2", "action": "EXIT"}, "the first that fits counts"


@pytest.mark.slow
def test_aws_batch_takes_them() -> None:
    from botocore.exceptions import ParamValidationError
    from botocore.session import Session
    from botocore.validate import validate_parameters

    model = Session().get_service_model("batch")
    for file, operation in (("job-definition.json", "RegisterJobDefinition"), ("submit.json", "SubmitJob")):
        text = (DEPLOY / "aws-batch" / file).read_text()
        validate_parameters(json.loads(text), model.operation_model(operation).input_shape)
        wrong = {**json.loads(text), "jobdefinition": "x"}
        with pytest.raises(ParamValidationError, match="Unknown parameter"):
            validate_parameters(wrong, model.operation_model(operation).input_shape)


def test_google_batch_jobs_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    (group,) = json.loads((DEPLOY / "google-batch" / "job.json").read_text())["taskGroups"]
    monkeypatch.setenv("BATCH_TASK_INDEX", "63")
    monkeypatch.setenv("BATCH_TASK_COUNT", group["taskCount"])
    (runnable,) = group["taskSpec"]["runnables"]
    assert called(runnable["container"]["commands"])["execution"].shard == (63, 64)
    (policy,) = group["taskSpec"]["lifecyclePolicies"]
    assert policy == {"action": "FAIL_TASK", "actionCondition": {"exitCodes": [2]}}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_google_batch_takes_them() -> None:
    batch, json_format = module("google.cloud.batch_v1"), module("google.protobuf.json_format")
    text = (DEPLOY / "google-batch" / "job.json").read_text()
    job = json_format.Parse(text, batch.Job.pb(batch.Job()))
    assert (job.task_groups[0].task_count, job.task_groups[0].task_spec.max_run_duration.seconds) == (64, 86400)
    with pytest.raises(json_format.ParseError, match="taskCounts"):
        json_format.Parse(text.replace("taskCount", "taskCounts"), batch.Job.pb(batch.Job()))


@pytest.mark.slow
def test_htcondor_reads_the_submit_file() -> None:
    submit = module("htcondor2").Submit((DEPLOY / "htcondor" / "infer.sub").read_text())
    told = called(submit.expand("arguments").split())
    assert told["execution"].shard == (0, int(submit["shards"]))
    assert told["execution"].threads == int(submit["request_cpus"])
    assert submit.getQArgs() == "$(shards)"
    classads = module("classad2")
    for by_signal, code, held in ((False, 2, True), (False, 3, False), (True, None, False)):
        ended = classads.ClassAd({"ExitBySignal": by_signal, **({} if code is None else {"ExitCode": code})})
        ended["hold"] = classads.ExprTree(submit["on_exit_hold"])
        assert ended.eval("hold") is held
