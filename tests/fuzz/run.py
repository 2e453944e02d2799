"""
Fuzz every target for a while, by coverage where atheris is there::

    python -m tests.fuzz.run [--seconds 30] [--seed N] [TARGET ...]

Each target is a process of its own. atheris instruments the code, so that inputs which reach new places are built upon;
without it hypothesis draws them blindly. An input that raises, takes more than ten seconds, or takes more than 2 GB of
memory ends it with status 1; the same --seed finds it again.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.support.messages import configure_django

FOUND = Path("var/fuzz")
#: of one input, seconds
LONGEST_S = 10
MOST_MEMORY_MB = 2048
#: inputs that hypothesis draws between two looks at the clock
BATCH = 500


def main() -> int:
    given = _arguments()
    if given.one:
        return _fuzz_one(given.one, given.seconds, given.seed)
    from .targets import TARGETS

    names = given.targets or list(TARGETS)
    print(f"seed {given.seed}, {given.seconds} s for each of {len(names)} targets", flush=True)
    return max(_run(name, given.seconds, given.seed) for name in names)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz what reads input from outside.")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(name: str, seconds: int, seed: int) -> int:
    command = [sys.executable, "-m", "tests.fuzz.run", "--one", name, "--seconds", str(seconds), "--seed", str(seed)]
    # an input that keeps even the fuzzer from looking at the clock
    longest_s = seconds + 6 * LONGEST_S
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=longest_s)
    except subprocess.TimeoutExpired:
        print(f"{name}: STUCK for {longest_s} s", flush=True)
        return 1
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "Instrumenting" not in line]
    if done.returncode == 0:
        told = [line for line in lines if line.startswith(("Done ", "inputs: ", "#")) and "pulse" not in line]
        print(f"{name}: {'; '.join(told[-2:])}", flush=True)
        return 0
    print("\n".join([f"{name}: FOUND", *lines[-80:]]), flush=True)
    return 1


def _fuzz_one(name: str, seconds: int, seed: int) -> int:
    return (_by_coverage if importlib.util.find_spec("atheris") else _blindly)(name, seconds, seed)


def _by_coverage(name: str, seconds: int, seed: int) -> int:
    import atheris

    FOUND.mkdir(parents=True, exist_ok=True)
    configure_django()
    with atheris.instrument_imports(include=["mail_service"]):
        from .targets import TARGETS
    from .test_decoders import fuzzed

    options = {
        "max_total_time": seconds,
        "seed": seed,
        "timeout": LONGEST_S,
        "rss_limit_mb": MOST_MEMORY_MB,
        "artifact_prefix": f"{FOUND}/{name.replace(' ', '-')}-",
        "print_final_stats": 1,
    }
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items())], _of(fuzzed(TARGETS[name], 1)))
    atheris.Fuzz()
    return 0


def _of(test: object) -> object:
    """What hypothesis makes of a test for a fuzzer that hands it bytes."""
    return test.hypothesis.fuzz_one_input  # type: ignore[attr-defined]


def _blindly(name: str, seconds: int, seed: int) -> int:
    configure_django()
    from hypothesis import seed as seeded

    from .targets import TARGETS
    from .test_decoders import fuzzed

    ends, count = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        seeded(seed + count)(fuzzed(TARGETS[name], BATCH))()
        count += BATCH
    print(f"inputs: {count}, by hypothesis alone, since atheris is not installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
