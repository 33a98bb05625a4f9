"""Runs what qualm offers to CI systems as these systems would: the steps of action.yml, of the GitLab
component, of the Jenkinsfile and of the hooks for pre-commit, each in its example repository.

usage: pipelines.py RELEASE QUALM TOOLS
RELEASE is a folder as a release is served (download/vX.Y.Z/…), QUALM the program, TOOLS the folder with
pre-commit. GitHub's client is replaced by a script that answers from files.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
RELEASE, QUALM, TOOLS = (Path(argument).resolve() for argument in sys.argv[1:4])
VERSION = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)

# Answers from FAKE_GH: the run, its artefact, the comment that is there; keeps what is written.
GH = r"""#!/usr/bin/env bash
set -eu
echo "$*" >>"$FAKE_GH/calls"
case "$1 $2" in
"run list") cat "$FAKE_GH/run" ;;
"run download")
    while [ $# -gt 0 ]; do [ "$1" = --dir ] && into=$2; shift; done
    [ -d "$FAKE_GH/artefact" ] || exit 1
    mkdir -p "$into" && cp -R "$FAKE_GH/artefact/." "$into" ;;
"api --paginate") cat "$FAKE_GH/comment" ;;
"api --method")
    [ ! -e "$FAKE_GH/forbidden" ] || { echo "HTTP 403" >&2; exit 1; }
    while [ $# -gt 0 ]; do case $1 in body=@*) cp "${1#body=@}" "$FAKE_GH/body" ;; esac; shift; done ;;
*) exit 2 ;;
esac
"""

passed = 0


def expect(what: str, got: Any, wanted: Any) -> None:
    """One test: what it is about, what came, what has to come."""
    global passed
    if got != wanted:
        sys.exit(f"{what}: {got!r}, expected {wanted!r}")
    passed += 1


def expect_in(what: str, part: str, text: str) -> None:
    """One test: a part that a text has to have."""
    global passed
    if part not in text:
        sys.exit(f"{what}: {part!r} is not in\n{text}")
    passed += 1


def environment(**more: str) -> dict[str, str]:
    """A bare environment of a CI system, with releases from the local folder."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**keep, "CI": "true", "QUALM_BASE_URL": RELEASE.as_uri(), **more}


def repository(work: Path, name: str) -> Path:
    """A copy of examples/NAME, with copies of the models where its specs look for them."""
    shutil.copytree(ROOT / "examples" / name, work / "examples" / name)
    (work / "specs/models").mkdir(parents=True)
    for model in ("f16", "q8_0", "q4_k_m", "q2_k"):
        shutil.copy(ROOT / f"specs/models/minilm-block0-{model}.gguf", work / "specs/models")
    return work / "examples" / name


def break_a_model(work: Path) -> None:
    """Somebody ships the wrong file: two bits where there should be four."""
    models = work / "specs/models"
    shutil.copy(models / "minilm-block0-q2_k.gguf", models / "minilm-block0-q4_k_m.gguf")


# --- GitHub ---------------------------------------------------------------------------------------


class Action:
    """action.yml's composite steps, run one after another as a runner does."""

    def __init__(self, work: Path, repository: Path) -> None:
        self.action = yaml.safe_load((ROOT / "action.yml").read_text())
        self.repository = repository
        self.runner = work / "runner"
        self.gh = work / "gh"
        for folder in (self.runner / "temp", self.runner / "tools", self.gh, work / "bin"):
            folder.mkdir(parents=True)
        (work / "bin/gh").write_text(GH)
        (work / "bin/gh").chmod(0o755)
        self.path = [str(work / "bin")]
        for name in ("run", "comment"):
            (self.gh / name).write_text("")

    def run(self, pull_request: str = "", **inputs: str) -> tuple[int, dict[str, str], str]:
        """The last failing step's exit code, or 0; the outputs; and what was printed."""
        values = {name: str(about.get("default", "")) for name, about in self.action["inputs"].items()} | inputs
        github = {
            "action_path": str(ROOT), "token": "t", "base_ref": "main" if pull_request else "", "workflow": "quality",
            "event": {"repository": {"default_branch": "main"}, "pull_request": {"number": pull_request}},
        }
        context = {"inputs": {name: evaluated(text, {"github": github}) for name, text in values.items()},
                   "github": github, "steps": {}}
        code, said, self.uploaded = 0, "", None
        for step in self.action["runs"]["steps"]:
            condition = evaluated("${{" + step["if"].removeprefix("${{").removesuffix("}}") + "}}", context) if "if" in step else "True"
            # A step without a condition is left out after a failure.
            if condition in ("False", "") or (code and "if" not in step):
                continue
            if "uses" in step:
                self.uploaded = {name: evaluated(text, context) for name, text in step["with"].items()}
                continue
            output, path = self.runner / "output", self.runner / "path"
            for file in (output, path):
                file.write_text("")
            env = environment(
                GITHUB_OUTPUT=str(output), GITHUB_PATH=str(path), GITHUB_STEP_SUMMARY=str(self.runner / "summary"),
                GITHUB_ACTIONS="true", GITHUB_REPOSITORY="org/models", RUNNER_TEMP=str(self.runner / "temp"),
                RUNNER_TOOL_CACHE=str(self.runner / "tools"), FAKE_GH=str(self.gh),
                **{name: evaluated(text, context) for name, text in step.get("env", {}).items()},
            )
            env["PATH"] = os.pathsep.join([*self.path, env["PATH"]])
            folder = self.repository / evaluated(step.get("working-directory", "."), context)
            done = subprocess.run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], cwd=folder,
                                  env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            said += done.stdout
            code = code or done.returncode
            self.path = [*path.read_text().split(), *self.path]
            if "id" in step:
                outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
                context["steps"][step["id"]] = {"outputs": outputs}
        outputs = {name: evaluated(about["value"], context) for name, about in self.action["outputs"].items()}
        return code, outputs, said


def evaluated(text: Any, context: dict[str, Any]) -> str:
    """A text with its `${{ … }}` replaced: names with dots, strings, ==, &&, ||, and !cancelled()."""

    def name(found: re.Match[str]) -> str:
        value: Any = context
        for part in found.group(0).split("."):
            value = value.get(part, "") if isinstance(value, dict) else ""
        return repr(value)

    def expression(found: re.Match[str]) -> str:
        code = found.group(1).replace("!cancelled()", "True").replace("&&", " and ").replace("||", " or ")
        parts = re.split(r"('[^']*')", code)
        parts[::2] = [re.sub(r"[a-z]+(?:\.[a-z_-]+)+", name, part) for part in parts[::2]]
        return str(eval("".join(parts), {"__builtins__": {}}))

    return re.sub(r"\$\{\{(.*?)\}\}", expression, str(text))


def github(work: Path) -> None:
    """The action: green without a baseline, red with one, on a pull request and from a fork."""
    action = Action(work, repository(work, "github-action"))
    code, outputs, said = action.run(args="run --tag release")
    expect("a green run", code, 0)
    expect("its outputs", outputs, {"version": VERSION, "exit-code": "0"})
    expect_in("without a run to compare with", "main has no successful run of this workflow yet", said)
    expect("the artefact", (action.uploaded["name"], action.uploaded["path"]), ("qualm", "./target/qualm"))
    reports = action.repository / "target/qualm"
    expect("the reports", (reports / "junit.xml").is_file() and (reports / "contract.json").is_file(), True)

    (action.gh / "run").write_text("77\n")
    _, _, said = action.run(version=VERSION)
    expect_in("an artefact that has expired", "has no artefact qualm any more", said)

    shutil.copytree(reports, action.gh / "artefact")
    break_a_model(work)
    code, outputs, said = action.run(version=VERSION, pull_request="5")
    expect("a broken model", (code, outputs["exit-code"]), (101, "101"))
    expect_in("annotations", "::error file=specs/quants.toml", said)
    body = (action.gh / "body").read_text()
    expect_in("the comment", "quants::q4_k_m::blk.0.ffn_up.weight", body)
    calls = (action.gh / "calls").read_text()
    expect_in("a first comment", "api --method POST repos/org/models/issues/5/comments", calls)
    expect_in("the summary", "quants::q4_k_m", (action.runner / "summary").read_text())

    (action.gh / "comment").write_text("123\n")
    action.run(version=VERSION, pull_request="5")
    expect_in("a second run", "api --method PATCH repos/org/models/issues/comments/123", (action.gh / "calls").read_text())
    (action.gh / "forbidden").write_text("")
    code, _, said = action.run(version=VERSION, pull_request="5")
    expect("a fork", code, 101)
    expect_in("a fork", "the token may not write comments", said)

    (action.gh / "calls").write_text("")
    code, outputs, said = action.run(version=VERSION, args="check '../../specs/models/minilm-block0-f16.gguf' "
                                     "../../specs/models/minilm-block0-q8_0.gguf", compare="false")
    expect("another command", (code, outputs["exit-code"]), (0, "0"))
    expect("without a comparison", (action.gh / "calls").read_text(), "")
    code, _, _ = action.run(version=VERSION, args="run '$(touch hurt)' `touch hurt`", compare="false")
    expect("arguments are not run", (code, (action.repository / "hurt").exists()), (4, False))
    code, _, said = action.run(version=VERSION, args="run 'q8_0", compare="false")
    expect("a quote that does not end", (code, "cannot be cut into words" in said), (2, True))
    expect("no arguments", action.run(version=VERSION, args="", compare="false")[0], 101)
    shutil.rmtree(action.runner / "tools")
    action.path = [str(work / "bin")]
    expect("no qualm on the PATH", action.run(version="preinstalled", compare="false")[0], 2)
    (work / "bin/qualm").symlink_to(QUALM)
    expect("the qualm on the PATH", action.run(version="preinstalled", args="--list", compare="false")[0], 0)
    code, _, said = action.run(version="9.9.9")
    expect("a version that does not exist", (code != 0, "cannot download" in said), (True, True))


# --- GitLab, Jenkins, pre-commit ------------------------------------------------------------------


def gitlab(work: Path) -> None:
    """The component, with the inputs that the example gives it."""
    using = repository(work, "gitlab")
    spec, job = (ROOT / "templates/qualm.yml").read_text().split("\n---\n")
    inputs = {name: about["default"] for name, about in yaml.safe_load(spec)["spec"]["inputs"].items()}
    inputs |= yaml.safe_load((using / ".gitlab-ci.yml").read_text())["include"][0]["inputs"]
    shutil.copytree(using, work / "old")

    def run(**more: str) -> tuple[int, str]:
        given = inputs | more
        text = re.sub(r"\$\[\[ inputs\.([a-z-]+) \]\]", lambda found: given[found.group(1)], job)
        [filled] = yaml.safe_load(text).values()
        env = environment(GITLAB_CI="true", CI_PROJECT_DIR=str(using), **filled["variables"])
        env["PATH"] = f"{work / 'bin'}{os.pathsep}{env['PATH']}"
        # GitLab joins the lines of a script, in a shell that ends at the first failure.
        done = subprocess.run(["sh", "-e", "-c", "\n".join(filled["script"])], cwd=using, env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout

    (work / "bin").mkdir()
    (work / "bin/qualm").symlink_to(QUALM)
    expect("GitLab, green", run()[0], 0)
    expect("GitLab's JUnit", (using / "qualm-reports/junit.xml").is_file(), True)
    shutil.copy(using / "qualm-reports/contract.json", work / "old.json")
    break_a_model(work)
    expect("GitLab, red", run(baseline=str(work / "old.json"))[0], 101)
    expect_in("GitLab, compared", "quants::q4_k_m", (using / "qualm-reports/compare.md").read_text())


def jenkins(work: Path) -> None:
    """The steps `sh` of the Jenkinsfile, with the release from the local folder."""
    using = repository(work, "jenkins")
    text = (using / "Jenkinsfile").read_text()
    variables = dict(re.findall(r"^ +(QUALM_\w+) = ['\"](.*)['\"]$", text, re.M))
    variables = {name: value.replace("${WORKSPACE}", str(using)) for name, value in variables.items()}
    install, judge = re.findall(r"^ +sh '(.*)'$", text, re.M)
    expect_in("the release that Jenkins installs", f"/download/v{VERSION}/install.sh | sh", install)
    install = re.sub(r"https://\S+/releases/", f"{RELEASE.as_uri()}/", install)

    def run(step: str) -> int:
        return subprocess.run(["sh", "-xe", "-c", step], cwd=using, env=environment(**variables),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode

    expect("Jenkins installs", run(install), 0)
    expect("Jenkins, green", run(judge), 0)
    expect("Jenkins's JUnit", (using / "qualm-reports/junit.xml").is_file(), True)
    break_a_model(work)
    expect("Jenkins, red", run(judge), 101)


def pre_commit(work: Path) -> None:
    """The hooks in a repository of git, with the qualm that is installed."""
    using = repository(work, "pre-commit")
    hooks = work / "hooks"
    hooks.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    (work / "bin").mkdir()
    (work / "bin/qualm").symlink_to(QUALM)
    env = environment(PRE_COMMIT_HOME=str(work / "cache"), GIT_CONFIG_GLOBAL="/dev/null")
    env["PATH"] = f"{work / 'bin'}{os.pathsep}{env['PATH']}"

    def git(*arguments: str, at: Path = using) -> str:
        named = ["-c", "user.name=n", "-c", "user.email=n@example.com", "-c", "init.defaultBranch=main"]
        return subprocess.run(["git", *named, *arguments], cwd=at, env=env, check=True, capture_output=True, text=True).stdout

    def run() -> tuple[int, str]:
        git("add", "-A")
        done = subprocess.run([TOOLS / "pre-commit", "run", "--all-files", "--color", "never"], cwd=using, env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout

    git("init", at=hooks)
    git("add", "-A", at=hooks)
    git("commit", "-m", "hooks", at=hooks)
    config = yaml.safe_load((using / ".pre-commit-config.yaml").read_text())
    [source] = config["repos"]
    source |= {"repo": str(hooks), "rev": git("rev-parse", "HEAD", at=hooks).strip()}
    commands = subprocess.run([QUALM, "--help"], capture_output=True, text=True).stdout
    verifies = "\n  verify " in commands
    if not verifies:
        print("pre-commit: this program has no command verify, its hook was not run")
        source["hooks"] = [hook for hook in source["hooks"] if hook["id"] != "qualm-verify"]
    for hook in source["hooks"]:
        hook["language"] = "system"
    (using / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    git("init")
    shutil.copy(work / "specs/models/minilm-block0-q8_0.gguf", using / "model.gguf")
    code, said = run()
    expect("pre-commit, green", (code, said.count("Passed")), (0, len(source["hooks"])))
    spec = using / "specs/quants.toml"
    sound = spec.read_text()
    spec.write_text(sound.replace("thresholds.tensor.cosine", "threshold.tensor.cosine"))
    code, said = run()
    expect("pre-commit, a wrong key", code, 1)
    expect_in("pre-commit, a wrong key", "did you mean `thresholds`", said)
    spec.write_text(sound)
    if verifies:
        with open(using / "model.gguf", "r+b") as model:
            model.truncate(500_000)
        code, said = run()
        expect("pre-commit, a model cut short", code, 1)
        expect_in("pre-commit, a model cut short", "truncated", said)


for pipeline in (github, gitlab, jenkins, pre_commit):
    with tempfile.TemporaryDirectory() as folder:
        pipeline(Path(folder))
print(f"pipelines: {passed} passed, 0 failed")
