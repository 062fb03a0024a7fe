"""Schemathesis against the gateway's own OpenAPI document: whatever is asked, no answer is a server's error.

Usage: gateway_openapi.py GATEWAY_URL
"""

import json
import pathlib
import subprocess
import sys
import tempfile

# Requests made up for each operation and phase; more find nothing more in the minutes that a test may take.
EXAMPLES = 25


def main() -> int:
    program = pathlib.Path(sys.executable).with_name("schemathesis")
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.json")
        command = [
            program, "run", f"{sys.argv[1]}/openapi.json",
            "--checks", "not_a_server_error",
            "--max-examples", str(EXAMPLES),
            # The same requests every time: a finding of today is one of tomorrow.
            "--generation-deterministic",
            # With several workers, Python 3.11's parser fails now and then in the middle of a run.
            "--workers", "1",
            "--report-json-path", report,
            "--no-color",
        ]  # fmt: skip
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if not report.exists():
            print(ran.stdout, ran.stderr)
            print("0 passed, 1 failed")
            return 1
        told = json.loads(report.read_text())
    operations, cases = told["operations"], told["test_cases"]
    broken = {failure.get("operation", "?") for failure in told["failures"]} | {
        str(error.get("operation", "?")) for error in told["errors"]
    }
    if ran.returncode or broken or not told["complete"]:
        print(ran.stdout)
    print(f"schemathesis: {cases['generated']} requests to {operations['tested']} operations")
    failed = max(len(broken), operations["total"] - operations["tested"], int(ran.returncode != 0))
    print(f"{operations['tested'] - min(failed, operations['tested'])} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
